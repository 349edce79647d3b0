"""The trainer: CLIP's nine models, trained on the shards and evaluated as the paper did it.

Plain PyTorch. No file here imports Beam or the harvest; the models import neither the data nor
`torch.distributed`; only `train.py` imports everything.
"""
