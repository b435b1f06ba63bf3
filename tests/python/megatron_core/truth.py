"""The set of checkpoints that a resharding tool is measured with, by name."""

import shutil
import time

from . import jobs

DENSE = [
    "tp1pp1",
    "tp2pp1",
    "tp2pp2",
    "tp1pp4",
    "tp4pp1",
    "tp1pp2first3",
    "tp1pp2last2",
    "tp1pp4first1last1",
    "tp1pp2-Etttttt.ttL",
]
VIRTUAL = ["tp1pp2vpp2", "tp2pp2vpp2", "tp1pp2vpp4", "tp1pp2-Et.ttt.tttt.L"]
MOE = ["tp1pp1", "tp1pp1ep2", "tp2pp1ep2etp1", "tp2pp2", "tp2pp2ep2etp1", "tp2pp2ep2", "tp1pp2ep4", "tp2pp1etp1"]
MOE_VIRTUAL = ["tp1pp2vpp2", "tp1pp2vpp2ep2"]

NAMES = [
    *(f"dense_{layout}_{kind}" for kind in ("plain", "dist") for layout in ("tp1pp1", "tp2pp2", "tp1pp2vpp2")),
    *(f"dense_{layout}_{kind}" for kind in ("plain", "dist") for layout in DENSE + VIRTUAL),
    *(f"dense_{layout}_none" for layout in ("tp1pp1", "tp2pp2")),
    *(f"dense_{layout}_plainfp32" for layout in ("tp1pp1", "tp2pp2")),
    *(f"dense_{layout}_distfp32" for layout in ("tp1pp1", "tp2pp2")),
    *(f"dense_{layout}_{kind}fp16" for kind in ("plain", "dist") for layout in ("tp1pp1", "tp2pp2")),
    *(f"dense_{layout}_{kind}fused" for kind in ("plain", "dist") for layout in ("tp1pp1", "tp2pp2", "tp1pp2vpp2")),
    *(
        f"moe_{layout}_{kind}fused"
        for kind in ("plain", "dist")
        for layout in ("tp1pp1", "tp2pp2ep2etp1", "tp1pp2vpp2ep2")
    ),
    # A stage without any expert.
    *(f"moe8_tp1pp4ep2_{kind}fused" for kind in ("plain", "dist")),
    # Several buckets, and ranks that share a buffer.
    *(
        f"dense_{layout}_distb2000"
        for layout in ("tp1pp1", "tp2pp2", "tp1pp2vpp2", "tp1pp1dp2", "tp1pp1dp3", "tp2pp1dp2")
    ),
    *(f"dense_{layout}_dist" for layout in ("tp1pp1dp2", "tp1pp1dp3", "tp1pp2dp2")),
    *(
        f"tied_{layout}_{kind}"
        for kind in ("plain", "dist")
        for layout in ("tp1pp1", "tp2pp1", "tp2pp2", "tp1pp4", "tp1pp2vpp2")
    ),
    *(f"tied_{layout}_distb1000" for layout in ("tp1pp1", "tp1pp2", "tp2pp2", "tp1pp2dp3")),
    *(f"moe_{layout}_{kind}" for kind in ("plain", "dist") for layout in MOE + MOE_VIRTUAL),
    *(f"moe_{layout}_distb1000" for layout in ("tp1pp1", "tp1pp1ep2", "tp1pp2vpp2ep2")),
    *(
        f"moe8_{layout}_{kind}"
        for kind in ("plain", "dist")
        for layout in ("tp1pp1", "tp2pp2ep2etp1", "tp1pp2vpp2ep2", "tp1pp2ep4")
    ),
    *(f"mla_{layout}_{kind}" for kind in ("plain", "dist") for layout in ("tp1pp1", "tp2pp2", "tp1pp2vpp2")),
    *(f"mtp_{layout}_{kind}" for kind in ("plain", "dist") for layout in ("tp1pp1", "tp2pp2")),
    *(f"qknorm_{layout}_{kind}" for kind in ("plain", "dist") for layout in ("tp1pp1", "tp2pp2", "tp1pp2vpp2")),
]


def make(directory, words):
    """Train every checkpoint whose name has one of `words` and that is not there yet."""
    for name in dict.fromkeys(NAMES):
        out = directory / name
        if words and not any(word in name for word in words) or (out / "latest_checkpointed_iteration.txt").exists():
            continue
        shutil.rmtree(out, ignore_errors=True)
        start = time.monotonic()
        try:
            jobs.run_all([{"name": name, "out": str(out), "facts": str(directory / "facts" / name)}])
            print(f"{name}: {time.monotonic() - start:.1f} s", flush=True)
        except RuntimeError as error:
            print(error, flush=True)
