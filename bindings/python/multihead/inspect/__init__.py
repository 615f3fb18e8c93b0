# SPDX-License-Identifier: Apache-2.0
"""What each head looks at: statistics of weights, labels, pages and pictures, of any model.

    from multihead import inspect
    inspect.head_view(outputs.attentions, tokens).save("heads.html")    from weights that are already there
    with inspect.record(model) as seen:                                  from a model of Transformers, at full speed
        model(**inputs)
    seen.layers[0].labels(3)

Importing this imports no framework. docs/insight.md says what the numbers mean, and what weights do not explain.
"""

from ._compare import Difference
from ._record import LayerStatistics, Recording, record
from ._view import HeadView, head_view, statistics_of_weights

__all__ = ["Difference", "HeadView", "LayerStatistics", "Recording", "head_view", "record", "statistics_of_weights"]
