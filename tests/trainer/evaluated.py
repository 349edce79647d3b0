"""What a rank evaluates in a test: in a module of its own, for ranks import what they run."""

from trainer.clip import create
from trainer.evaluate.features import image_features, text_features
from trainer.evaluate.retrieval import retrieval
from trainer.evaluate.sets import open_set
from trainer.evaluate.zero_shot import class_embeddings, zero_shot
from trainer.tokenizer import tokenize
from trainer.zoo import MODELS


def evaluate_both(rank: int, clothes: str, photographs: str) -> dict[str, list]:
    """What is found on 50 clothes (three batches) and on 20 photographs, and features of both."""
    model, how = create(MODELS["cpu-ViT-tiny/32"], seed=0), {"batch": 20, "threads": 1}
    first, second = open_set("c", clothes, limit=50), open_set("p", photographs, limit=20)
    results = zero_shot(model, tokenize, first, **how), retrieval(model, tokenize, second, **how)
    found = {r.task: [r.numbers, r.predictions.to_pylist(), r.faults] for r in results}
    texts = [text for captions in second.captions for text in captions]
    return found | {
        "images": image_features(model, first.pictures, **how)[0].tolist(),
        "texts": text_features(model, tokenize, texts * 3).tolist(),
        "classes": class_embeddings(model, tokenize, first.classes, first.templates * 9).tolist(),
    }
