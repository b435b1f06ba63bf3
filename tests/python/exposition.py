"""The text format of Prometheus 0.0.4, read strictly: what its own parsers let through and a scraper would not is refused too."""

import re

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
SAMPLE = re.compile(r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)\Z")
LABEL = re.compile(r'(?P<name>[a-zA-Z_][a-zA-Z0-9_]*)="(?P<value>(?:[^"\\\n]|\\["\\n])*)"(?:,|\Z)')
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}


def parse(text):
    """{family: (type, {(sample name, labels): value})}; AssertionError for anything a scraper would refuse or guess at."""
    assert text.endswith("\n"), "the last line has no end"
    families, current, helped = {}, None, None
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            helped, text_of = line[7:].split(" ", 1)
            assert NAME.match(helped) and text_of, line
        elif line.startswith("# TYPE "):
            name, kind = line[7:].split(" ")
            assert name == helped and name not in families and kind in SUFFIXES, line
            families[name], current = (kind, {}), name
        else:
            found = SAMPLE.match(line)
            assert found and current, line
            kind, samples = families[current]
            assert found["name"] in [current + suffix for suffix in SUFFIXES[kind]], line
            labels = _labels(found["labels"])
            key = (found["name"], tuple(sorted(labels.items())))
            assert key not in samples, f"twice: {line}"
            samples[key] = float(found["value"])
    for name, (kind, samples) in families.items():
        assert (kind == "counter") == name.endswith("_total"), name
        assert all(value >= 0 for value in samples.values()), name
        if kind == "histogram":
            _check_histogram(name, samples)
    return families


def _labels(text):
    labels, at = {}, 0
    while text and at < len(text):
        found = LABEL.match(text, at)
        assert found and found["name"] not in labels, text
        labels[found["name"]] = re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], found["value"])
        at = found.end()
    return labels


def _check_histogram(name, samples):
    series = {}
    for (sample, labels), value in samples.items():
        rest = tuple(label for label in labels if label[0] != "le")
        series.setdefault(rest, {}).setdefault(sample.removeprefix(name), []).append((dict(labels).get("le"), value))
    for parts in series.values():
        buckets = [(float(bound), value) for bound, value in parts["_bucket"]]
        assert buckets == sorted(buckets) and buckets[-1][0] == float("inf"), buckets
        assert [value for _, value in buckets] == sorted(value for _, value in buckets), buckets
        assert parts["_count"] == [(None, buckets[-1][1])] and len(parts["_sum"]) == 1, parts


def values(families, name, **labels):
    """{remaining labels: value} of the samples of a family that have these labels."""
    found = {}
    for (sample, pairs), value in families[name][1].items():
        if sample == name and labels.items() <= dict(pairs).items():
            found[tuple(item for label, item in pairs if label not in labels and label not in ("mount", "source"))] = value
    return found


def value(families, name, **labels):
    """The one sample that has these labels."""
    (only,) = values(families, name, **labels).values()
    return only
