# SPDX-License-Identifier: Apache-2.0
"""Which models may have attn_implementation="multihead": those with a module that asks Transformers' interface.

Transformers takes any registered name for any model; modules that never ask the interface run their own code.
"""

import functools
import sys
import types
import warnings

import torch
from transformers import AttentionInterface, PreTrainedModel

NAME = "multihead"


def _mentions(function, seen):
    """Whether the code of a function, or of the functions of its file that it calls, names an AttentionInterface."""
    if id(function) in seen:
        return False
    seen.add(id(function))
    names, codes = set(), [function.__code__]
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    if "ALL_ATTENTION_FUNCTIONS" in names:
        return True
    values = [function.__globals__.get(name) for name in names]
    if any(isinstance(value, AttentionInterface) for value in values):
        return True
    called = [value for value in values
              if isinstance(value, types.FunctionType) and value.__module__ == function.__module__]
    for cell in function.__closure__ or ():  # what a decorator has wrapped
        try:
            called.append(cell.cell_contents)
        except ValueError:  # a name that is not bound yet
            continue
    return any(_mentions(other, seen) for other in called if isinstance(other, types.FunctionType))


@functools.lru_cache(maxsize=None)
def _asks(kind):
    """Whether a method of a class of modules asks the interface; one that is overridden counts where super() is called."""
    if kind.__module__.startswith("multihead."):
        return True
    hidden = set()
    for owner in kind.__mro__:
        if owner in (torch.nn.Module, PreTrainedModel):
            break
        for name, value in vars(owner).items():
            value = getattr(value, "__func__", value)
            if not isinstance(value, types.FunctionType) or name in hidden:
                continue
            if _mentions(value, set()):
                return True
            if "super" not in value.__code__.co_names:
                hidden.add(name)
    return False


def _looks_like_attention(module):
    if isinstance(module, torch.nn.MultiheadAttention):
        return True
    name = type(module).__name__
    return ("Attention" in name or "Attn" in name) and not isinstance(module, PreTrainedModel)


def _sorted(module, name, chosen, asking, own):
    """Sorts the modules of models whose implementation is NAME: asking, and own, (name, module), the innermost that look
    like attention and do not ask. True where the module or one below it is in either."""
    if isinstance(module, PreTrainedModel):
        chosen = module.config._attn_implementation == NAME
    elif chosen and _asks(type(module)):
        asking.append(module)
        return True
    below = [_sorted(child, f"{name}.{part}" if name else part, chosen, asking, own)
             for part, child in module.named_children()]
    if any(below):
        return True
    if chosen and _looks_like_attention(module):
        own.append((name, module))
        return True
    return False


def _listed(own):
    """"decoder.attn (MyAttention), .. and 3 more": one of each class."""
    first = {}
    for name, module in own:
        first.setdefault(type(module), name)
    parts = [f"{name or 'the model'} ({kind.__name__})" for kind, name in first.items()]
    more = len(own) - len(first)
    return ", ".join(parts) + (f" and {more} more of the same" if more else "")


def check(model):
    """Raises ValueError for a model without a module that asks the interface; warns of modules beside those that do not."""
    asking, own = [], []
    _sorted(model, "", False, asking, own)
    if not asking:
        why = f"; {_listed(own)} compute as they are written" if own else ""
        raise ValueError(
            f'{type(model).__name__}: attn_implementation is "{NAME}", but no module of it goes through '
            f'transformers.AttentionInterface{why}. It only runs as it is written, which is "eager"')
    if own:
        warnings.warn(f'{type(model).__name__}: attn_implementation is "{NAME}", but these modules do not go through '
                      f"transformers.AttentionInterface and compute as they are written: {_listed(own)}", stacklevel=3)


def _is_part(model):
    """Whether the model is being made by the constructor of another model, which will be checked as a whole."""
    frame = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if code.co_name == "__init__" and code.co_argcount:
            maker = frame.f_locals.get(code.co_varnames[0])
            if isinstance(maker, PreTrainedModel) and maker is not model:
                return True
        frame = frame.f_back
    return False


def _uses(model):
    return any(isinstance(module, PreTrainedModel) and module.config._attn_implementation == NAME
               for module in model.modules())


def _refuser(table, place):
    def refuse(*arguments, **named):
        raise ValueError(f'attn_implementation is "{NAME}", but {place} chooses its attention from {table}, not through '
                         "transformers.AttentionInterface; \"eager\" runs it")

    return refuse


def _fill_tables(kind):
    """Some files choose a class of attention from a table by the implementation's name: there it stands for a refusal."""
    for owner in kind.__mro__:
        file = sys.modules.get(owner.__module__) if issubclass(owner, PreTrainedModel) else None
        for name, value in vars(file).items() if file and owner is not PreTrainedModel else ():
            if type(value) is dict and isinstance(value.get("eager"), type):
                value.setdefault(NAME, _refuser(name, owner.__module__))


def _asked_for(implementation):
    if isinstance(implementation, dict):
        return any(_asked_for(value) for value in implementation.values())
    return implementation == NAME


def _implementations(model):
    """(configuration, its implementation) of the model and of everything below it."""
    found, waiting = {}, [module.config for module in model.modules() if isinstance(module, PreTrainedModel)]
    while waiting:
        configuration = waiting.pop()
        if configuration is None or id(configuration) in found:
            continue
        found[id(configuration)] = configuration, configuration._attn_implementation
        waiting += [getattr(configuration, name, None) for name in configuration.sub_configs]
    return list(found.values())


def install():
    """Makes models check themselves when they are made and when their implementation is set; once."""
    choose, made, change = (PreTrainedModel.get_correct_attn_implementation, PreTrainedModel.post_init,
                            PreTrainedModel.set_attn_implementation)
    if getattr(made, "multihead_checks", False):
        return

    @functools.wraps(choose)
    def get_correct_attn_implementation(self, requested_attention, *arguments, **named):
        if requested_attention == NAME:
            _fill_tables(type(self))
        return choose(self, requested_attention, *arguments, **named)

    @functools.wraps(made)
    def post_init(self, *arguments, **named):
        if _uses(self) and not _is_part(self):
            check(self)
        return made(self, *arguments, **named)

    @functools.wraps(change)
    def set_attn_implementation(self, attn_implementation, *arguments, **named):
        before = _implementations(self)
        result = change(self, attn_implementation, *arguments, **named)
        if _asked_for(attn_implementation):
            try:
                check(self)
            except ValueError:
                for configuration, implementation in before:
                    configuration._attn_implementation_internal = implementation
                raise
        return result

    post_init.multihead_checks = True
    PreTrainedModel.get_correct_attn_implementation = get_correct_attn_implementation
    PreTrainedModel.post_init = post_init
    PreTrainedModel.set_attn_implementation = set_attn_implementation
