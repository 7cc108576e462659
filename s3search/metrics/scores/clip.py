"""The CLIP score of each image: how well it shows what its caption says.

    score = w max(cos(image features, caption features), 0)

Source: arXiv:2104.08718, sec. 3, with w = 2.5.  torchmetrics and many tables take w = 100; and
some papers ViT-B/32 or B/16 where others take ViT-L/14, which gives other numbers altogether.
The paper also puts "A photo depicts" before each caption, which most tables do not; it is not
done here.  Below zero there is no gradient: such an image shows something else.
"""

from s3search.metrics.clip_score import WEIGHT
from s3search.metrics.extractors.clip import PATH
from s3search.metrics.extractors.pretrained import pretrained, tokenizer
from s3search.metrics.scores.captions import CaptionScore


def load(path: str = PATH, *, scale: float = WEIGHT, download: bool = False) -> CaptionScore:
    """The score ``clip``: ``path`` is a folder or a hub id of a transformers CLIPModel with its
    tokenizer.
    """
    model = pretrained("CLIPModel", "metric.path", path, download=download)
    n_tokens = int(model.config.text_config.vocab_size)
    tokens = tokenizer("metric.path", path, n_tokens, download=download)
    return CaptionScore("clip", model, tokens, scale=scale, positive=True)
