"""One network, four ways to call it: Python eager, Python on an exported program, C++ on one, and the C++ front end.

python -m benchmarks.four_ways [--weights NODULE] [--build build/cpp] [--output docs/concepts/four-ways-table.md]

The same crop goes through all of them; each way is started in a process of its own, so that start-up counts. Writes a
Markdown table.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

THREADS = 1
REPEATS = 20

PYTHON = """
import json, sys, time
import numpy as np, torch
torch.set_num_threads({threads})
from pathlib import Path
crops = torch.from_numpy(np.fromfile({crops!r}, np.float32).reshape({shape}))
if {way!r} == "eager":
    from carina.models import load_model
    network = load_model(Path({file!r}))[0]
elif {way!r} == "aoti":
    network = torch._inductor.aoti_load_package({file!r})
else:
    import warnings
    warnings.filterwarnings("ignore", category=FutureWarning, module="copyreg")
    network = torch.export.load({file!r}).module()
with torch.inference_mode():
    logits = network(crops)
    times = []
    for _ in range({repeats}):
        one = time.process_time()
        logits = network(crops)
        times.append(1000 * (time.process_time() - one))
print(json.dumps(dict(call_ms=times, logits=logits.flatten().tolist())))
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--weights", type=Path, help="nodule network; default: the shipped one")
    arguments.add_argument("--build", type=Path, default=Path("build/cpp"), help="where carina-call was built")
    arguments.add_argument("--output", type=Path, help="where the table goes too")
    given = arguments.parse_args()
    from importlib.resources import files

    weights = given.weights or Path(str(files("carina") / "weights" / "nodule.safetensors"))
    lines = table(weights, given.build / "carina-call")
    print("\n".join(lines))
    if given.output:
        given.output.write_text("\n".join(lines) + "\n")


def table(weights: Path, carina_call: Path) -> list[str]:
    """Run every way and set their figures side by side."""
    from carina.export import Subject, export_model

    subject = Subject.load(weights)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        export_model(subject, folder, ["traced", "exported", "aoti"])
        crops = subject.example(1).numpy()
        crops.tofile(folder / "crops.f32")
        stem = f"{folder / subject.name}"
        ways = {
            "Python, eager": _python("eager", str(weights), folder, crops.shape),
            "Python, exported program": _python("exported", f"{stem}.exported.pt2", folder, crops.shape),
            "Python, AOTInductor package": _python("aoti", f"{stem}.aoti.pt2", folder, crops.shape),
            "C++, TorchScript": _cpp(carina_call, "load", f"{stem}.traced.pt", folder, crops.shape),
            "C++, AOTInductor package": _cpp(carina_call, "load", f"{stem}.aoti.pt2", folder, crops.shape),
            "C++, front end (torch::nn)": _cpp(carina_call, "front-end", f"{stem}.traced.pt", folder, crops.shape),
        }
        results = {name: _timed(command) for name, command in ways.items()}
    reference = np.array(results["Python, eager"][1]["logits"])
    lines = [
        "| way | p_nodule | largest difference of a logit | processor ms a call | processor s, whole process |",
        "|---|---|---|---|---|",
    ]
    for name, (seconds, found) in results.items():
        logits = np.array(found["logits"])
        p = 1 / (1 + np.exp(logits[0] - logits[1]))
        lines.append(
            f"| {name} | {p:.6f} | {np.abs(logits - reference).max():.1e} "
            f"| {statistics.median(found['call_ms']):.1f} | {seconds:.1f} |"
        )
    return lines


def _python(way: str, file: str, folder: Path, shape: tuple[int, ...]) -> list[str]:
    code = PYTHON.format(
        way=way, file=file, crops=str(folder / "crops.f32"), shape=shape, threads=THREADS, repeats=REPEATS
    )
    return [sys.executable, "-c", code]


def _cpp(program: Path, way: str, file: str, folder: Path, shape: tuple[int, ...]) -> list[str]:
    sizes = [str(length) for length in shape]
    return [str(program), way, file, str(folder / "crops.f32"), str(REPEATS), str(THREADS), *sizes]


def _timed(command: list[str]) -> tuple[float, dict]:
    begin = _processor_seconds()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = _processor_seconds() - begin
    if done.returncode:
        raise SystemExit(f"{command[:2]} failed:\n{done.stderr}")
    return seconds, json.loads(done.stdout)


def _processor_seconds() -> float:
    """Of all processes that were started and have ended; other programs on the machine do not count."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
