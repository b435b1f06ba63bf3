"""The ways in which a mount can serve files: formats, who keeps pages, how much is kept, how many threads answer.

Not here: what is read (`operations`).
"""

PT = ("--as", "megatron", "--tp", 2, "--pp", 2)
SAFETENSORS = ("--as", "safetensors", "--tp", 2, "--pp", 2)
# The longest file of a view is about a quarter of it.
SMALL = "small"

# Name: format, and how it is mounted.
MODES = {
    "pt-direct": (PT, ()),
    "pt-direct-nothing-kept": (PT, ("--cache-size", 0, "--threads", 1)),
    "pt-direct-little-kept": (PT, ("--cache-size", "2MiB", "--threads", 8)),
    "pt-cached": (PT, ("--io", "cached")),
    "pt-cached-nothing-kept": (PT, ("--io", "cached", "--cache-size", 0)),
    "pt-cached-little-kept": (PT, ("--io", "cached", "--cache-size", SMALL, "--threads", 1)),
    "safetensors-cached": (SAFETENSORS, ()),
    "safetensors-cached-nothing-kept": (SAFETENSORS, ("--cache-size", 0, "--threads", 1)),
    "safetensors-cached-little-kept": (SAFETENSORS, ("--cache-size", SMALL)),
    "safetensors-direct": (SAFETENSORS, ("--io", "direct")),
}


def flags(mode, view_bytes, *more):
    """Options of `mount` for a view of so many bytes; checksums, where files have any, as in a copy. `more` are put in place of those of the same name."""
    layout, options = MODES[mode]
    # Room for one of the four files but not for two: they push each other out.
    little = view_bytes * 2 // 5
    chosen = dict(zip(options[::2], options[1::2])) | dict(zip(more[::2], more[1::2]))
    chosen = {name: little if value is SMALL else value for name, value in chosen.items()}
    sums = ("--crc", "exact") if layout is PT else ()
    return (*layout, *(word for pair in chosen.items() for word in pair), *sums)
