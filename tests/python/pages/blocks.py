"""A page as blocks of code, and what a command printed against what the page says it prints."""

import dataclasses
import re

# Languages of blocks, and what is done with them.
SHELL, SESSION, PYTHON = "sh", "console", "python"
# Nothing to run: files, output, pictures.
DATA = ("text", "toml", "json", "yaml", "ini")
OPENING = re.compile(r"^( *)```(\S*)$")
# Commands that readers do not see: what must be there before those that they do.
HIDDEN = re.compile(r"^<!-- sh$")

# What differs from run to run is the same for the comparison.
VARYING = [
    (re.compile(r"\d+(?:\.\d+)? s\b"), "N s"),
    (re.compile(r"\b\d+s \(process \d+"), "Ns (process N"),
    (re.compile(r"\d+(?:\.\d+)? [kMG]?B/s"), "N B/s"),
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"), "TIME"),
    (re.compile(r"\b(process|pid) \d+"), r"\1 N"),
    (re.compile(r"\b(version|ckpt-fs) \d+\.\d+\.\d+"), r"\1 N"),
    (re.compile(r"[ \t]+"), " "),
]


@dataclasses.dataclass
class Block:
    page: str
    line: int
    language: str
    text: str

    def __str__(self):
        return f"{self.page}:{self.line}"


@dataclasses.dataclass
class Command:
    text: str
    # Lines that the page says it prints.
    output: list


def blocks(page, text):
    """Every fenced block of a page."""
    found, opened = [], None
    for number, line in enumerate(text.splitlines(), 1):
        if opened is None:
            if start := OPENING.match(line):
                opened = (number, start[1], start[2], [])
            elif HIDDEN.match(line):
                opened = (number, "", SHELL, [])
        elif line.strip() in ("```", "-->"):
            at, indent, language, lines = opened
            body = [line.removeprefix(indent) for line in lines]
            found.append(Block(page, at, language, "\n".join(body) + "\n"))
            opened = None
        else:
            opened[3].append(line)
    if opened:
        raise AssertionError(f"{page}:{opened[0]}: a block without an end")
    return found


def commands(block):
    """The commands of a session, each with the lines that follow it. One that ends with a backslash or stands over a here-document goes on."""
    found, lines = [], block.text.splitlines()
    while lines:
        line = lines.pop(0)
        if not line.startswith("$ "):
            if not found:
                raise AssertionError(f"{block}: a session begins with '$ ', not with {line!r}")
            found[-1].output.append(line)
            continue
        text = line[2:]
        while text.endswith("\\"):
            text += "\n" + lines.pop(0)
        if end := re.search(r"<<-?\s*'?(\w+)'?", text):
            while not text.endswith("\n" + end[1]):
                text += "\n" + lines.pop(0)
        found.append(Command(text, []))
    return found


def steady(line):
    """A line without what differs from run to run."""
    for pattern, same in VARYING:
        line = pattern.sub(same, line)
    return line.strip()


def differs(wanted, printed):
    """Why output is not what a page says, or None. `...` alone is any number of lines, within a line any text."""
    wanted = [steady(line) for line in wanted if line.strip()]
    printed = [steady(line) for line in printed if line.strip()]
    pattern = "".join(
        r"(?:.*\n)*" if line == "..." else ".*".join(map(re.escape, line.split("..."))) + r"\n" for line in wanted
    )
    if re.fullmatch(pattern, "".join(line + "\n" for line in printed)):
        return None
    return "\n".join(["the page says", *wanted, "", "the program says", *printed])
