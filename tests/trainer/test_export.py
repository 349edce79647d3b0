"""What `wit export` writes is loaded by others as it is, with the same numbers."""

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the trainer's install has torch: [train]")
transformers = pytest.importorskip("transformers", reason="compared with: the extra [peers]")
open_clip = pytest.importorskip("open_clip", reason="compared with: the extra [peers]")

from trainer.clip import create  # noqa: E402
from trainer.convert import write_weights  # noqa: E402
from trainer.export import main  # noqa: E402
from trainer.tokenizer import tokenize  # noqa: E402
from trainer.zoo import MODELS  # noqa: E402
from wit.errors import UserError  # noqa: E402

TEXTS = ["A dog's red house, 1999!", "naïve café 北京 🙂", "", "x " * 200, "&amp; &lt;b&gt; it's"]


@pytest.fixture(scope="module", params=["cpu-ViT-tiny/32", "cpu-RN-tiny"])
def exported(request, tmp_path_factory) -> tuple[Path, object]:
    folder = tmp_path_factory.mktemp("export")
    model = create(MODELS[request.param], 3).eval()
    write_weights(str(folder / "weights.safetensors"), model.state_dict(), model.config)
    assert main([str(folder / "weights.safetensors"), "--out", str(folder / "out")]) == 0
    return folder / "out", model


def test_open_clip_loads_it_and_computes_the_same(exported):
    folder, model = exported
    theirs = open_clip.create_model_from_pretrained(f"local-dir:{folder}")[0].eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(theirs.encode_image(images), model.encode_image(images), atol=1e-5)


def test_hugging_faces_processor_has_its_pictures_and_its_words(exported):
    folder, model = exported
    if model.config.name == "cpu-RN-tiny":
        assert not (folder / "config.json").exists()  # CLIPModel has no ResNets
        return
    processor = transformers.CLIPProcessor.from_pretrained(str(folder))
    theirs = processor.tokenizer(TEXTS, truncation=True, max_length=77)["input_ids"]
    ours, lengths = tokenize(TEXTS)
    # Hugging Face repairs no text and resolves no entities; the rest is the same.
    for text, found, row, length in zip(TEXTS, theirs, ours, lengths, strict=True):
        if "&" not in text:
            assert found == row[:length].tolist(), text
    pixels = processor.image_processor(
        np.zeros((90, 70, 3), np.uint8), return_tensors="np"
    ).pixel_values
    assert pixels.shape == (1, 3, 64, 64)


def test_a_folder_that_holds_something_is_left_alone(exported, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        main([str(exported[0]), "--out", str(tmp_path)])


def test_the_last_checkpoint_of_a_run_is_exported(tmp_path, capsys):
    run = tmp_path / "run"
    for step in (3, 12):
        folder = run / "checkpoints" / f"{step:010d}"
        folder.mkdir(parents=True)
        model = create(MODELS["cpu-ViT-tiny/32"], step)
        write_weights(str(folder / "model.safetensors"), model.state_dict(), model.config)
        (folder / "run.json").write_text(json.dumps({}))
    (run / "config.toml").write_text('model = "cpu-ViT-tiny/32"\n')
    assert main([str(run), "--out", str(tmp_path / "out")]) == 0
    assert "0000000012" in capsys.readouterr().out
    assert main([str(run), "--step", "3", "--out", str(tmp_path / "third")]) == 0
    assert "0000000003" in capsys.readouterr().out
