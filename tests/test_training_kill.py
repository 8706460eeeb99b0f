"""A training process killed at random moments, again and again, ends with the same bits as one that was left alone."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import only_full

import hamlayers as hl


# One process imports everything and then forks the runs, which saves importing it all for every one of them; jax has
# not been used before the fork, so that each run starts it, compiles and trains by itself, and dies by itself.
SCRIPT = """
import os, random, signal, sys, time, warnings
warnings.simplefilter("error")
import equinox as eqx, jax, jax.numpy as jnp, numpy as np, optax
import hamlayers as hl
from hamlayers import lagrangians, synapses, training

STEPS = 400


def loss(model, batch, key):
    hidden = jax.random.bernoulli(key, 0.3, batch.shape)
    swept = lambda x: model.drive(model.activations(model.complete({"image": x})))["image"]  # a sweep: quick to compile
    recalled = jax.vmap(model.layers["image"].activation)(jax.vmap(swept)(jnp.where(hidden, 0.0, batch)))
    return jnp.mean((recalled - batch) ** 2), {"hidden": jnp.mean(hidden.astype(jnp.float32))}


def run(folder, every):
    rng = np.random.default_rng(0)
    patterns = np.sign(rng.normal(size=(24, 8))).astype(np.float32)
    model = hl.HAM(
        {"image": hl.TanhLayer(8, beta=2.0), "memory": hl.SoftmaxLayer(5, beta=1.0)},
        synapses={"recall": synapses.Dense.random(8, 5, key=jax.random.key(1))},
        connections=[(("image", "memory"), "recall")],
    )
    result = training.fit(
        model, loss, patterns, optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.01)),
        steps=STEPS, batch_size=5, key=jax.random.key(2), validation=patterns, validate_every=50, log_every=17,
        early_stopping=training.EarlyStopping(100), checkpoint=training.Checkpoint(folder, every=every, keep=2),
    )
    arrays = [np.asarray(leaf) for leaf in jax.tree.leaves((result.model, result.state.opt_state, result.losses))]
    arrays += [np.asarray(values) for name in sorted(result.history) for values in result.history[name]]
    np.savez(os.path.join(folder, "end.npz"), *arrays)


def last_step(folder):
    return max((int(name[5:14]) for name in os.listdir(folder) if name.startswith("step_")), default=0)


random = random.Random(0)
for line in sys.stdin:
    folder, every, saves = line.split()
    child = os.fork()
    if child == 0:
        run(folder, int(every))
        os._exit(0)
    # killed once it has saved so many times, or, if that is 0, within two seconds, while it starts
    later, found, status = time.monotonic() + random.uniform(0, 2), 0, 0
    last = last_step(folder)
    while not found and (last_step(folder) < last + int(saves) if int(saves) else time.monotonic() < later):
        found, status = os.waitpid(child, os.WNOHANG)
        time.sleep(random.uniform(0, 0.002))
    if not found:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    print("killed" if os.WIFSIGNALED(status) else os.WEXITSTATUS(status), flush=True)
"""
STEPS, NEVER = 400, 1000
assert f"STEPS = {STEPS}\n" in SCRIPT


@pytest.mark.slow
@pytest.mark.parametrize("kills", only_full([2, 20], but=[2]))
def test_a_run_killed_again_and_again_ends_with_the_same_bits(tmp_path: Path, kills: int) -> None:
    whole, broken, cache = (tmp_path / name for name in ("whole", "broken", "cache"))
    whole.mkdir(), broken.mkdir()
    environment = {
        **os.environ,
        # what a run compiles is kept for the next one, or this test would take ten times as long
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    rng = random.Random(0)
    ended: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def run(folder: Path, every: int, saves: int) -> str:
            print(folder, every, saves, file=process.stdin, flush=True)
            return process.stdout.readline().strip()

        assert run(whole, 400, NEVER) == "0"
        steps = []
        while ended.count("killed") < kills:
            # most of them while it trains and saves, as fast as it can; some while it starts, compiles or resumes
            ended.append(run(broken, 1, rng.randint(1, 2 * STEPS // kills) if rng.random() < 0.8 else 0))
            assert ended[-1] in ("killed", "0"), ended
            steps.append(max((int(path.name[5:14]) for path in broken.glob("step_*")), default=0))
            if (broken / "end.npz").exists():  # it got to its end: from the start again, those kills count too
                assert_same(whole, broken)
                for path in broken.iterdir():
                    path.unlink()
        assert run(broken, 1, NEVER) == "0"
        process.stdin.close()
    assert_same(whole, broken)
    assert len(set(steps)) > kills // 3  # they were at different moments
    assert not list(broken.glob("*.tmp"))


def assert_same(whole: Path, broken: Path) -> None:
    with np.load(whole / "end.npz") as one, np.load(broken / "end.npz") as other:
        assert one.files == other.files
        for name in one.files:
            assert one[name].tobytes() == other[name].tobytes(), name


@pytest.mark.slow
def test_a_process_killed_while_it_saves_leaves_the_old_file(tmp_path: Path) -> None:
    """Killed in the middle of writing a file, many times: what is under its name is always whole."""
    script = (
        "import sys, numpy as np, hamlayers as hl\n"
        "i = 0\n"
        "while True:\n"
        "    i += 1\n"
        "    hl.save(sys.argv[1], {'a': np.full(300_000, i), 'i': i})\n"
        "    print(i, flush=True)\n"
    )
    path, rng = tmp_path / "file", random.Random(1)
    like = {"a": np.zeros(300_000, int), "i": 0}
    with subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            # a copy under the same name, at a moment of its own: a reader sees the old or the new, and never a part
            time.sleep(rng.uniform(0, 0.01))
            found = hl.load(path, like)
            assert np.all(found["a"] == found["i"])
            assert found["i"] >= int(line)
            if int(line) >= 40:
                break
        time.sleep(rng.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
    found = hl.load(path, like)
    assert np.all(found["a"] == found["i"])
