# SPDX-License-Identifier: Apache-2.0
"""Gradients of one call of multihead.attention: through its output, its log-sum-exp and its weights on request."""

import torch

import multihead
from multihead import WeightsRequest

NO_TANGENTS = ("multihead has no forward-mode gradient of attention: differentiate backward (backward(), torch.autograd.grad), "
               "or use torch.nn.functional.scaled_dot_product_attention")
NO_SECOND = ("multihead has no second derivative of attention: its gradients cannot be differentiated again. Use "
             "torch.nn.functional.scaled_dot_product_attention under torch.nn.attention.sdpa_kernel(SDPBackend.MATH)")


def plain(tensor):
    """The tensor as the library reads it: without its history, last axis contiguous (copied where it is not)."""
    tensor = tensor.detach()
    return tensor if tensor.shape[-1] <= 1 or tensor.stride(-1) == 1 else tensor.clone(memory_format=torch.contiguous_format)


def draw_seed(device):
    """Of dropout: an integer from PyTorch's generator, in a tensor."""
    return torch.randint(2 ** 63 - 1, (), dtype=torch.int64, device=device)


class Once(torch.autograd.Function):
    """What compute() gives as a function of tensors, whose own derivative is refused."""

    @staticmethod
    def forward(ctx, compute, *tensors):
        return compute()

    @staticmethod
    def backward(ctx, *grads):
        raise NotImplementedError(NO_SECOND)


def sum_of(dtype):
    """The type of the sums, and of lse."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _product(weights, values):
    """weights @ values, where a weight of zero leaves out what is not finite: no hidden key, or row, is reached."""
    finite = torch.isfinite(values)
    if finite.all():
        return weights @ values
    tainted = (weights != 0).to(values.dtype) @ (~finite).to(values.dtype) > 0
    return (weights @ values.masked_fill(~finite, 0)).masked_fill(tainted, float("nan"))


def _through_weights(wanted, d_weights, q, k, lse, layout, options):
    """{name: gradient} of the wanted among q, k, bias and sinks, from the gradient of the weights (batch, heads, q_len,
    kv_len), or of their mean over the heads (batch, q_len, kv_len). Dense, as the weights themselves are."""
    options = {name: value for name, value in options.items() if not name.startswith("dropout")}  # weights are those before it
    q, k = (tensor.to(sum_of(tensor.dtype)) for tensor in (q, k))
    weights = multihead.attention_weights(q, k, lse, layout=layout, **options)
    d_weights = d_weights.to(weights.dtype)
    if d_weights.dim() == 3:
        d_weights = d_weights[:, None] / weights.shape[1]
    hidden = weights == 0
    through = (weights * d_weights).masked_fill(hidden, 0).sum(-1, keepdim=True)
    d_scores = (weights * (d_weights - through)).masked_fill(hidden, 0)
    found = {}
    if "bias" in wanted:
        found["bias"] = d_scores.sum_to_size(options["bias"].shape)
    if "sinks" in wanted:
        sinks = torch.as_tensor(options["sinks"], dtype=torch.float64)
        found["sinks"] = -(torch.exp(sinks[:, None] - lse) * through[..., 0]).sum((0, 2))
    if options.get("softcap"):
        capped = multihead.attention_weights(q, k, layout=layout, weights=WeightsRequest("capped"), **options)
        d_scores = (d_scores * (1 - (capped / options["softcap"]).square())).masked_fill(hidden, 0)
    scale = options.get("scale")
    d_scores = d_scores * (q.shape[-1] ** -0.5 if scale is None else scale)
    if layout == "bshd":
        q, k = q.transpose(1, 2), k.transpose(1, 2)
    by_group = d_scores.unflatten(1, (k.shape[1], -1))  # (batch, kv_heads, heads that share one, q_len, kv_len)
    if "q" in wanted:
        found["q"] = _product(by_group, k[:, :, None]).flatten(1, 2)
    if "k" in wanted:
        found["k"] = _product(by_group.mT, q.unflatten(1, (k.shape[1], -1))).sum(2)
    if layout == "bshd":
        found.update({name: found[name].transpose(1, 2) for name in ("q", "k") if name in found})
    return found


def gradients(wanted, above, forward, *, layout, threads, **options):
    """{name: gradient} of the wanted among q, k, v, bias, alibi_slopes and sinks.

    above: the gradients of out, lse and, where there are any, weights, each a tensor or None; forward: (q, k, v, out,
    lse) of the call."""
    d_out, d_lse, d_weights = (*above, None)[:3]
    q, k, v, out, lse = (plain(tensor) for tensor in forward)
    found = {}
    if d_out is not None or d_lse is not None:
        d_out = torch.zeros_like(out) if d_out is None else plain(d_out)
        found = multihead.attention_backward(d_out, q, k, v, out, lse, d_lse=None if d_lse is None else d_lse.detach(),
                                             want=wanted, layout=layout, threads=threads, **options)._asdict()
    if d_weights is not None:
        for name, more in _through_weights(wanted, d_weights.detach(), q, k, lse, layout,
                                           {"threads": threads, **options}).items():
            found[name] = more if found.get(name) is None else found[name] + more
    like = {"q": q, "k": k, "v": v}
    return {name: _as(found.get(name), like.get(name)) for name in wanted}


def _as(found, like):
    if found is None:
        return None if like is None else torch.zeros_like(like)
    return found if like is None else found.to(like.dtype)
