"""Zero-shot classification and retrieval: others' numbers, and the same on any number of ranks."""

# ruff: noqa: E402 (what follows needs torch)

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="no torch in this environment")
open_clip = pytest.importorskip("open_clip", reason="no open_clip in this environment")

from PIL import Image

from benchmarks import models as peers
from tests.trainer.evaluated import evaluate_both
from tests.trainer.ranks import run_ranks
from trainer import checkpoint, convert
from trainer.clip import empty
from trainer.evaluate import command
from trainer.evaluate.files import open_files
from trainer.evaluate.pictures import ClassSet
from trainer.evaluate.prompts import GENERIC
from trainer.evaluate.retrieval import retrieval, search
from trainer.evaluate.sets import open_set
from trainer.evaluate.weights import load_model, weights_of
from trainer.evaluate.zero_shot import class_embeddings, classify, zero_shot
from trainer.tokenizer import tokenize
from trainer.zoo import MODELS
from wit import storage
from wit.errors import UserError
from wit.pairs import PREDICTIONS

TINY_VIT, TINY_RESNET = MODELS["cpu-ViT-tiny/32"], MODELS["cpu-RN-tiny"]


@pytest.fixture(scope="session")
def clothes(shared_data) -> str:
    return str(shared_data / "images" / "clothing_cc0_300.tar")


@pytest.fixture(scope="session")
def photographs(shared_data) -> str:
    return str(shared_data / "images" / "flickr8k_train_128.tar")


@pytest.fixture(scope="session")
def folder(clothes, tmp_path_factory) -> Path:
    """Six clothes in each of three classes, as files."""
    out, files = tmp_path_factory.mktemp("clothes"), open_files(clothes)
    for kind in ("dress", "hat", "pants"):
        chosen = [i for i, name in enumerate(files.names) if f"/{kind}/" in name][:6]
        (out / kind).mkdir()
        for i in chosen:
            (out / kind / Path(files.names[i]).name).write_bytes(files.read(i))
    return out


def random_model(config=TINY_VIT, seed=0):
    model = empty(config)
    model.initialise()
    peers.randomise(model, seed)
    return model.eval()


def read_back(evaluated, side) -> torch.Tensor:
    """The pictures as torchvision prepares them, for models that know nothing of us."""
    prepare = open_clip.image_transform(side, is_train=False)
    count = len(evaluated.pictures.keys)
    opened = [Image.open(io.BytesIO(evaluated.pictures.read(i))) for i in range(count)]
    return torch.stack([prepare(picture) for picture in opened])


def unit(rows) -> np.ndarray:
    rows = rows.double().numpy()
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# --- others' numbers --------------------------------------------------------------------------


@pytest.mark.parametrize(("config", "seed"), [(TINY_VIT, 0), (TINY_RESNET, 5)])
def test_the_predictions_are_those_of_open_clips_classifier(config, seed, clothes, tmp_path):
    model, evaluated = random_model(config, seed), open_set("clothes", clothes, limit=60)
    result = zero_shot(model, tokenize, evaluated, batch=25)

    convert.export(str(tmp_path), model.state_dict(), config)
    theirs = open_clip.create_model(f"local-dir:{tmp_path}").eval()
    classes = [names[0] for names in evaluated.classes]
    with torch.no_grad():
        weights = open_clip.build_zero_shot_classifier(
            theirs,
            open_clip.SimpleTokenizer(),
            classnames=classes,
            templates=[lambda name, t=t: t.replace("{}", name) for t in GENERIC],
        )
        images = read_back(evaluated, config.vision.resolution)
        scores = theirs.encode_image(images, normalize=True) @ weights
    top, own = scores.topk(5).indices.numpy(), scores[range(60), evaluated.labels]

    rows = result.predictions.to_pylist()
    assert result.predictions.schema == PREDICTIONS
    assert [row["predicted"] for row in rows] == [classes[i] for i in top[:, 0]]
    assert [row["label"] for row in rows] == [key.split("/")[0] for key in evaluated.pictures.keys]
    assert len({row["predicted"] for row in rows}) > 1
    assert [row["rank"] for row in rows] == (scores >= own[:, None]).sum(dim=1).tolist()
    right = [row["label"] == row["predicted"] for row in rows]
    within = [evaluated.labels[i] in top[i] for i in range(60)]
    assert [row["correct"] for row in rows] == right
    assert result.numbers["top1"] == np.mean(right)
    assert result.numbers["top5"] == np.mean(within)
    per_class = [np.mean(np.array(right)[evaluated.labels == c]) for c in range(10)]
    assert result.numbers["mean_per_class"] == pytest.approx(np.mean(per_class))
    assert (result.numbers["pictures"], result.numbers["broken"]) == (60, 0)


def test_recall_is_that_of_a_plain_computation_with_five_captions_a_picture(photographs):
    model, evaluated = random_model(), open_set("photographs", photographs, limit=40)
    result = retrieval(model, tokenize, evaluated, batch=15)

    texts = [text for captions in evaluated.captions for text in captions]
    with torch.no_grad():
        images = unit(model.encode_image(read_back(evaluated, 64)))
        captions = unit(model.encode_text(open_clip.tokenize(texts)))
    scores, owners = images @ captions.T, np.repeat(np.arange(40), 5)
    order = np.argsort(-scores, axis=1)
    for k in (1, 5, 10):
        found = [i in owners[order[i, :k]] for i in range(40)]
        assert result.numbers[f"image_to_text_r{k}"] == np.mean(found)
        nearest = np.argsort(-scores, axis=0)[:k]
        found = [owners[t] in nearest[:, t] for t in range(200)]
        assert result.numbers[f"text_to_image_r{k}"] == np.mean(found)
    rows = result.predictions.to_pylist()
    assert [row["predicted"] for row in rows] == [texts[t] for t in order[:, 0]]
    assert [owners[order[i, row["rank"] - 1]] for i, row in enumerate(rows)] == list(range(40))
    assert (result.numbers["pictures"], result.numbers["texts"]) == (40, 200)


def test_a_class_is_the_normalised_mean_over_all_its_templates_and_names():
    model, templates = random_model(), ["a {}.", "my {c}, once", "{}"]
    classes = [["hat"], ["shoe", "boot"], ["coat {}"]]
    found = class_embeddings(model, tokenize, classes, templates)
    for row, names in zip(found, classes, strict=True):
        prompts = [t.replace("{c}", "{}").replace("{}", n) for n in names for t in templates]
        with torch.no_grad():
            mean = unit(model.encode_text(open_clip.tokenize(prompts))).mean(axis=0)
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-6)


# --- ties -------------------------------------------------------------------------------------

scores = st.one_of(st.integers(-2, 2).map(float), st.just(float("nan")))


@given(st.data())
def test_ties_and_what_is_no_number_count_against_the_label(data):
    count = data.draw(st.integers(1, 6))
    row = data.draw(st.lists(scores, min_size=count, max_size=count))
    label = data.draw(st.integers(0, count - 1))
    (predicted,), (rank,) = classify(
        np.array([row], np.float32), np.array([label]), np.arange(count)
    )
    ahead = [c for c in range(count) if c != label and not row[c] < row[label]]
    assert rank == 1 + len(ahead)
    assert (predicted == label) == (rank == 1)
    if ahead:
        height = {c: np.inf if np.isnan(row[c]) else row[c] for c in ahead}
        assert predicted == min(ahead, key=lambda c: (-height[c], c))


def test_of_classes_with_the_same_names_the_first_is_ahead():
    alike, row = np.array([0, 1, 1, 3]), np.array([[0, 2, 2, 1]] * 2, np.float32)
    predicted, ranks = classify(row, np.array([1, 2]), alike)
    assert predicted.tolist() == [1, 1]
    assert ranks.tolist() == [1, 2]


@given(st.data())
def test_a_search_finds_the_best_own_target_behind_all_that_are_not_below_it(data):
    owners = np.array(data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=8)))
    values = st.lists(scores, min_size=len(owners), max_size=len(owners))
    targets = np.array(data.draw(values), np.float32)[:, None]
    query = np.ones((4, 1), np.float32)
    ranks, best, first = search(query, np.arange(4), targets, owners)
    for picture in range(4):
        own = [t for t in range(len(owners)) if owners[t] == picture]
        if not own:
            assert ranks[picture] == 0
            continue
        height = {t: -9 if np.isnan(targets[t, 0]) else targets[t, 0] for t in own}
        chosen = min(own, key=lambda t: (-height[t], t))
        others = [t for t in range(len(owners)) if owners[t] != picture]
        ahead = [t for t in others if not targets[t, 0] < targets[chosen, 0]]
        assert best[picture] == chosen
        assert ranks[picture] == 1 + len(ahead)
        assert (first[picture] == chosen) == (not ahead)


# --- ranks ------------------------------------------------------------------------------------


def test_two_ranks_find_what_one_process_finds(clothes, photographs, tmp_path):
    alone = evaluate_both(0, clothes, photographs)
    assert run_ranks(evaluate_both, 2, tmp_path, clothes, photographs) == [alone, alone]


# --- pictures that are broken -----------------------------------------------------------------


def test_a_broken_picture_is_counted_and_wrong(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "set")
    damaged = sorted((tmp_path / "set" / "hat").iterdir())[2]
    damaged.write_bytes(damaged.read_bytes()[:300])
    whole = zero_shot(random_model(), tokenize, open_set("c", str(folder)))
    result = zero_shot(random_model(), tokenize, open_set("c", str(tmp_path / "set")))

    assert (result.numbers["pictures"], result.numbers["broken"]) == (18, 1)
    rows = {row["key"]: row for row in result.predictions.to_pylist()}
    broken = rows.pop(f"hat/{damaged.name}")
    assert (broken["predicted"], broken["correct"], broken["rank"]) == (None, False, None)
    assert broken["label"] == "hat"
    assert list(rows.values()) == [
        row for row in whole.predictions.to_pylist() if row["key"] in rows
    ]
    assert result.numbers["top1"] == sum(row["correct"] for row in rows.values()) / 18
    assert result.numbers["top5"] == 17 / 18
    assert len(result.faults) == 1
    assert f"hat/{damaged.name}" in result.faults[0]


def test_a_broken_picture_is_not_found_by_its_captions_which_still_distract(folder, tmp_path):
    for number, path in enumerate(sorted(folder.rglob("*.jpg"))[:4]):
        data = path.read_bytes()
        (tmp_path / f"{number}.jpg").write_bytes(data if number else data[:100])
        (tmp_path / f"{number}.txt").write_text(f"caption {number}\nthe other of {number}\n")
    model, evaluated = random_model(), open_set("p", str(tmp_path))
    result = retrieval(model, tokenize, evaluated)
    rows = result.predictions.to_pylist()
    assert (result.numbers["pictures"], result.numbers["broken"]) == (4, 1)
    assert result.numbers["texts"] == 8
    assert rows[0]["rank"] is None
    # Three pictures are left, so three quarters of pictures and of captions can be found at most.
    assert result.numbers["image_to_text_r10"] == result.numbers["text_to_image_r5"] == 0.75
    # A picture's captions have all eight before them, those of the broken one too.
    others = [text for captions in evaluated.captions for text in captions]
    assert {row["predicted"] for row in rows[1:]} <= set(others)


# --- within a training loop -------------------------------------------------------------------


def test_the_model_is_left_as_it_was_in_the_middle_of_training(folder):
    model = random_model(TINY_RESNET)
    model.train()
    model.visual.bn2.eval()
    modes = [module.training for module in model.modules()]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    zero_shot(model, tokenize, open_set("c", str(folder)))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("config", [TINY_VIT, TINY_RESNET], ids=lambda c: c.name)
def test_weights_in_half_precision_give_predictions_near_those_of_fp32(config, folder):
    evaluated, model = open_set("c", str(folder)), random_model(config)
    exact = zero_shot(model, tokenize, evaluated).predictions["rank"].to_numpy()
    half = zero_shot(model.bfloat16(), tokenize, evaluated).predictions["rank"].to_numpy()
    assert np.mean(exact == half) > 0.5


# --- the command ------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path) -> str:
    path = tmp_path / "weights"
    convert.export(str(path), random_model().state_dict(), TINY_VIT)
    return str(path)


def test_wit_eval_writes_the_numbers_and_every_prediction(weights, folder, tmp_path, capsys):
    out, captions = tmp_path / "out", {"a.jpg": ["one", "two"], "b.jpg": ["three"]}
    (tmp_path / "pairs").mkdir()
    for name, source in zip(captions, sorted(folder.rglob("*.jpg")), strict=False):
        shutil.copy(source, tmp_path / "pairs" / name)
    (tmp_path / "pairs" / "captions.json").write_text(json.dumps(captions))
    sets = [f"z={folder}", str(tmp_path / "pairs")]
    assert command.main([weights, "--sets", *sets, "--out", str(out), "--device", "cpu"]) == 0

    results = storage.read_json(str(out / "results.json"))
    assert results["model"]["model"] == "cpu-ViT-tiny/32"
    assert {name: entry["task"] for name, entry in results["sets"].items()} == {
        "z": "zero-shot",
        "pairs": "retrieval",
    }
    assert results["sets"]["z"]["templates"] == list(GENERIC)
    table = storage.read_table(str(out / "predictions.parquet"))
    assert table.schema.equals(PREDICTIONS)
    assert table["set"].to_pylist() == ["pairs"] * 2 + ["z"] * 18
    right = [row["correct"] for row in table.to_pylist() if row["set"] == "z"]
    assert results["sets"]["z"]["top1"] == sum(right) / 18
    printed = capsys.readouterr().out
    assert printed.startswith("z: top-1")
    assert "pairs: image to text R@1" in printed


def test_a_set_that_was_evaluated_is_not_evaluated_again(weights, folder, tmp_path, monkeypatch):
    arguments = [weights, "--sets", f"z={folder}", "--out", str(tmp_path / "out")]
    command.main([*arguments, "--limit", "4"])
    calls = []
    evaluate = command.evaluate
    monkeypatch.setattr(command, "evaluate", lambda *a, **k: calls.append(1) or evaluate(*a, **k))
    command.main([*arguments, "--limit", "4"])
    assert not calls
    command.main(arguments)
    assert calls
    assert storage.read_table(str(tmp_path / "out" / "predictions.parquet")).num_rows == 18


def test_results_of_other_weights_are_not_mixed(weights, folder, tmp_path):
    arguments = ["--sets", f"z={folder}", "--out", str(tmp_path / "out"), "--limit", "2"]
    command.main([weights, *arguments])
    convert.export(str(tmp_path / "other"), random_model(seed=1).state_dict(), TINY_VIT)
    with pytest.raises(UserError, match=r"whose sha256 is .*choose another --out"):
        command.main([str(tmp_path / "other"), *arguments])


def test_a_run_is_evaluated_at_its_last_checkpoint_or_the_one_asked_for(folder, tmp_path):
    run = tmp_path / "run"
    for step in (10, 200):
        place = Path(checkpoint.folder_of(str(run), step))
        convert.write_weights(
            str(place / "model.safetensors"), random_model(seed=step).state_dict(), TINY_VIT
        )
        (place / "run.json").write_text("{}")
    Path(checkpoint.folder_of(str(run), 300)).mkdir()  # was being written when the run was killed
    with pytest.raises(UserError, match="does not say which model"):
        load_model(str(run))
    (run / "config.toml").write_text("")
    for step, wanted in ((None, 200), (10, 10)):
        model, facts = load_model(weights_of(str(run), step))
        assert torch.equal(model.visual.proj, random_model(seed=wanted).visual.proj)
        assert facts["model"] == "cpu-ViT-tiny/32"
    with pytest.raises(UserError, match="no checkpoint of step 7; there are 10, 200"):
        weights_of(str(run), 7)
    with pytest.raises(UserError, match="no such run"):
        weights_of(str(tmp_path / "absent"))


def test_the_limit_takes_pictures_of_every_class(clothes):
    evaluated = open_set("clothes", clothes, limit=20)
    assert isinstance(evaluated, ClassSet)
    assert sorted(set(evaluated.labels.tolist())) == list(range(10))
