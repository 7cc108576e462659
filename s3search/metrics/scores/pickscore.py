"""PickScore: a CLIP ViT-H/14 tuned to which of two images people picked for a text.

    score = exp(logit_scale) cos(image features, caption features)

Published scores lie at about 18 to 24; a difference d says that the better image is picked with
probability 1 / (1 + exp(-d)).

Source: arXiv:2305.01569; weights yuvalkirstain/PickScore_v1.  Its authors take the
tokenizer of the model that was tuned.  Some codes leave the scale out and some divide by 26 or so
to come near [0, 1]: such numbers are this score over a constant.
"""

from s3search.metrics.extractors.pretrained import pretrained, tokenizer
from s3search.metrics.scores.captions import CaptionScore

PATH = "yuvalkirstain/PickScore_v1"
TOKENIZER = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


def load(path: str = PATH, *, tokens: str = TOKENIZER, download: bool = False) -> CaptionScore:
    """The score ``pickscore``: ``path`` is a folder or a hub id of its CLIPModel, ``tokens`` one
    of a CLIP tokenizer.
    """
    model = pretrained("CLIPModel", "metric.path", path, download=download)
    n_tokens = int(model.config.text_config.vocab_size)
    found = tokenizer("metric.tokens", tokens, n_tokens, download=download)
    return CaptionScore("pickscore", model, found, scale=float(model.logit_scale.detach().exp()))
