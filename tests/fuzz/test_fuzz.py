"""A short fuzz run, the same each time; and the run itself notices what it is to notice."""

import random
import signal
import subprocess
import sys
import time

import pytest

from tests.fuzz import __main__ as run
from tests.fuzz import corpus, targets, worker
from tests.fuzz.mutate import TOKENS, mend_png, mutate
from tests.fuzz.worker import Current, Trial

INPUTS = 250


@pytest.mark.parametrize("target", list(targets.TARGETS))
def test_files_changed_by_chance_get_documented_answers_and_the_same_twice(target):
    entries = corpus.made_here()[target]
    chance = random.Random(7)
    answers = set()
    for number in range(INPUTS):
        data = entries[number] if number < len(entries) else mutate(entries, chance, TOKENS[target])
        answer = targets.TARGETS[target](data)
        answers.add(answer[0])
        if number % 10 == 0:
            assert targets.TARGETS[target](data) == answer
    assert len(answers) > 2, "the inputs reach next to nothing"


def test_a_picture_gets_the_same_answer_from_a_decoder_process():
    entries = corpus.made_here()["pictures"]
    chance = random.Random(3)
    pool = targets.Pool()
    try:
        for data in [*entries, *(mutate(entries, chance, TOKENS["pictures"]) for _ in range(40))]:
            assert pool(data) == targets.pictures(data)
    finally:
        pool.close()


@pytest.mark.long
def test_the_real_files_are_inputs_of_every_target(shared_data):
    found = corpus.seeds(shared_data / "torture")
    made = corpus.made_here()
    assert len(found["pictures"]) > 300 + len(made["pictures"])
    assert len(found["responses"]) > 50 + len(made["responses"])
    odd = corpus.seeds(shared_data / "warc")["extract"]
    assert {targets.KINDS[data[0]] for data in odd} >= {"crawl", "page", "response", "wat"}


def test_a_png_changed_by_chance_has_its_checksums_right():
    png = next(data for data in corpus.made_here()["pictures"] if data.startswith(b"\x89PNG"))
    changed = bytearray(png)
    changed[17] ^= 1  # its width
    mend_png(changed)
    assert changed != png
    assert targets.pictures(bytes(changed))[1].count("checksum") == 0
    mended = bytearray(changed)
    mend_png(mended)
    assert mended == changed


def test_a_finding_is_written_once_with_the_command_that_repeats_it(tmp_path, monkeypatch):
    def breaks(data: bytes) -> targets.Answer:
        if data.startswith(b"bad"):
            raise ValueError("it broke")
        return ("fine",)

    monkeypatch.setitem(targets.TARGETS, "extract", breaks)
    trial = Trial("extract", "blind", tmp_path)
    for data in (b"good", b"bad 1", b"bad 2"):
        trial(data)
    trial.close()
    (text,) = (tmp_path / "findings").glob("*.txt")
    assert text.with_suffix("").read_bytes() == b"bad 1"
    assert f"--targets extract --repeat {text.with_suffix('')}" in text.read_text()
    assert "it broke" in text.read_text()
    assert trial.counts["fine"] == 1


def test_another_answer_to_the_same_input_is_a_finding(tmp_path, monkeypatch):
    answers = iter(range(1000))
    monkeypatch.setattr(worker, "TWICE", 1)
    monkeypatch.setitem(targets.TARGETS, "extract", lambda data: (str(next(answers)),))
    trial = Trial("extract", "blind", tmp_path)
    trial(b"x")
    (text,) = (tmp_path / "findings").glob("*.txt")
    assert "another answer to the same input" in text.read_text()


@pytest.mark.parametrize(
    ("code", "end"),
    [
        ("pass", None),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("raise SystemExit(3)", "exit code 3"),
        ("while True: pass", "hang"),
    ],
)
def test_a_worker_that_dies_or_hangs_is_noticed(tmp_path, monkeypatch, code, end):
    monkeypatch.setattr(run, "HANG", 0.2)
    current = Current(tmp_path / "current")
    current.write(1, b"the culprit")
    with subprocess.Popen([sys.executable, "-c", code]) as child:
        begun = time.monotonic()
        assert run.wait(child, current) == end
        assert time.monotonic() - begun < 20
    assert Current(tmp_path / "current").read() == (1, b"the culprit")
    assert child.returncode == {"hang": -signal.SIGKILL}.get(end, child.returncode)


def test_growth_is_that_of_the_memory_after_the_first_third():
    warm = [(n * 10_000, 50_000_000 * min(n, 3)) for n in range(1, 10)]
    assert run.growth(warm) == pytest.approx(0, abs=1)
    leak = [(n, memory + 100 * n) for n, memory in warm]
    assert run.growth(leak) == pytest.approx(100 * 100_000, rel=0.01)
    assert run.growth(leak[:3]) is None


def test_a_step_of_the_memory_is_no_growth_but_many_are():
    step = [(n * 2000, 250_000_000 + 1000 * n + 50_000_000 * (n > 16)) for n in range(1, 30)]
    assert run.growth(step) == pytest.approx(1000 * 50, rel=0.01)
    steps = [(n * 2000, 250_000_000 + 8_000_000 * (n // 4)) for n in range(1, 30)]
    assert run.growth(steps) == pytest.approx(1_000 * 100_000, rel=0.1)
