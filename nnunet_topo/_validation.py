"""Checked settings: a mapping becomes frozen dataclasses, or the error says what is wrong, where, and how to mend it.

A dataclass field made with `setting(default, check)` names the check of its value; `build` walks the fields. A check is
a function `(value, where) -> value as stored`. Nothing in here knows what a recipe is.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn, TypeVar

import yaml

from nnunet_topo.errors import ConfigError, nearest

T = TypeVar("T")
# YAML 1.1 wants a dot and a sign in a float with an exponent, so PyYAML reads 1e-4 as text
_SCIENTIFIC = re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+")


@dataclasses.dataclass(frozen=True)
class Where:
    """Place of a value, for messages: dotted key, file or other source, and a value that would be accepted."""

    key: str
    source: str
    example: str = ""

    def child(self, name: object, example: str = "") -> Where:
        """Where of `name` inside this one."""
        return Where(f"{self.key}.{name}" if self.key else str(name), self.source, example)

    def fail(self, expected: str, value: object, mend: str = "") -> NoReturn:
        """Raise the ConfigError of this place.

        Args:
            expected: what would have been accepted, in words.
            value: what was found.
            mend: what to do; by default the example of this place.
        """
        leaf = self.key.rsplit(".", 1)[-1]
        mend = mend or (f"Write for example '{leaf}: {self.example}'." if self.example else "Correct it there.")
        raise ConfigError(f"{self.key or 'recipe'}: expected {expected}, got {value!r}. {self.source}. {mend}")


Check = Callable[[Any, Where], Any]


class FrozenMapping(dict[str, Any]):
    """A dict that refuses to change: settings are shared, so an accidental write must be an error.

    It is a real dict (JSON, `weights_only` loading through `to_builtins`, equality and unpacking work) and, unlike
    `types.MappingProxyType`, it pickles and deep-copies. `|` and `copy` give ordinary dicts.
    """

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("this mapping is part of a recipe and can't be changed: use Recipe.with_overrides")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        """Hash of the items, in any order."""
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[type[FrozenMapping], tuple[dict[str, Any]]]:
        """Pickle by construction: the default would call `__setitem__`."""
        return FrozenMapping, (dict(self),)


def as_number(value: object) -> object:
    """The float that text in scientific notation stands for; any other value unchanged."""
    return float(value) if isinstance(value, str) and _SCIENTIFIC.fullmatch(value.strip()) else value


def freeze(value: object, where: Where) -> Any:
    """Immutable copy of nested YAML values: mappings to FrozenMapping, lists to tuples, `1e-4` to a float."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                where.fail("keys that are text", key)
        return FrozenMapping({key: freeze(item, where.child(key)) for key, item in value.items()})
    if isinstance(value, (list, tuple)):
        return tuple(freeze(item, where.child(index)) for index, item in enumerate(value))
    value = as_number(value)
    if value is not None and not isinstance(value, (str, int, float)):
        where.fail("text, a number, true, false, null, a list or a mapping", value)
    return value


def to_builtins(value: object) -> Any:
    """Plain dicts, lists and scalars of nested settings, keyed as in YAML; fields that don't apply are left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            yaml_key(field): to_builtins(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if applies(field, {other.name: getattr(value, other.name) for other in dataclasses.fields(value)})
        }
    if isinstance(value, Mapping):
        return {key: to_builtins(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_builtins(item) for item in value]
    return value


def setting(default: Any, check: Check, *, key: str = "", only_for: tuple[str, ...] = (), kw_only: bool = False) -> Any:
    """Dataclass field with a check.

    Args:
        default: value when the key is absent; `dataclasses.MISSING` makes the key required.
        check: validates and normalises the value.
        key: name in YAML, the field's own name by default.
        only_for: first the name of a sibling field, then its values with which this field means anything. With other
            values the field must be absent (or null) and holds None.
        kw_only: makes the field keyword-only (a required one behind defaults).
    """
    metadata = {"check": check, "key": key, "only_for": only_for}
    return dataclasses.field(default=default, metadata=metadata, kw_only=kw_only)


def yaml_key(field: dataclasses.Field[Any]) -> str:
    """Name of a field in YAML."""
    return field.metadata["key"] or field.name


def applies(field: dataclasses.Field[Any], values: Mapping[str, Any]) -> bool:
    """Whether a field means anything beside the given values of its siblings."""
    only_for = field.metadata["only_for"]
    return not only_for or values[only_for[0]] in only_for[1:]


class Variant:
    """Base of settings whose keys depend on their kind: what does not apply holds None, however it was made."""

    def __post_init__(self) -> None:
        """Clear the fields that mean nothing with the chosen kind."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        values = {field.name: getattr(self, field.name) for field in fields}
        for field in fields:
            if not applies(field, values):
                object.__setattr__(self, field.name, None)


def build(cls: type[T], mapping: object, where: Where) -> T:
    """Instance of a settings dataclass from a mapping with YAML keys; null and {} give the defaults.

    Raises:
        ConfigError: not a mapping, an unknown or missing key, a value that its check refuses, or a key that does not
            apply to the chosen kind.
    """
    mapping = {} if mapping is None else mapping
    if not isinstance(mapping, Mapping):
        where.fail("a mapping of keys to values", mapping)
    fields = {yaml_key(field): field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in mapping:
        if key not in fields:
            unknown_key(where.child(key), str(key), fields)
    values: dict[str, Any] = {}
    for key, field in fields.items():
        required = field.default is dataclasses.MISSING
        inner = where.child(key, "" if required or field.default is None else _as_yaml(field.default))
        if key in mapping and mapping[key] is None and field.metadata["only_for"]:
            continue
        if key in mapping:
            values[field.name] = field.metadata["check"](mapping[key], inner)
        elif required:
            inner.fail("a value", None, f"Add the key '{key}'.")
    complete = {field.name: values.get(field.name, field.default) for field in fields.values()}
    for key, field in fields.items():
        if not applies(field, complete):
            variant, *names = field.metadata["only_for"]
            if field.name in values:
                mend = f"Remove it, or choose another '{variant}'."
                where.child(key).fail(f"only with {variant}: {' or '.join(names)}", mapping[key], mend)
    return cls(**values)


def unknown_key(where: Where, key: str, valid: Iterable[str]) -> NoReturn:
    """Raise the ConfigError of a key that does not exist, naming the nearest one that does."""
    valid = list(valid)
    names = ", ".join(valid)
    raise ConfigError(f"{where.key}: unknown key. {where.source}.{nearest(key, valid)} Valid keys: {names}.")


def _as_yaml(value: object) -> str:
    text: str = yaml.safe_dump(to_builtins(value), default_flow_style=True, width=1000)
    return text.removesuffix("...\n").strip()


def integer(at_least: int, at_most: int | None = None) -> Check:
    """Check of an int in a closed range; booleans and floats are not integers."""
    text = f"an integer >= {at_least}" + (f" and <= {at_most}" if at_most is not None else "")

    def check(value: object, where: Where) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            where.fail(text, value)
        if value < at_least or (at_most is not None and value > at_most):
            where.fail(text, value)
        return value

    return check


def number(
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> Check:
    """Check of a finite number in a range; gives a float. `1e-4` as text counts, booleans do not."""
    limits = ((">", above), (">=", at_least), ("<", below), ("<=", at_most))
    text = "a finite number " + " and ".join(f"{sign} {limit:g}" for sign, limit in limits if limit is not None)

    def check(value: object, where: Where) -> float:
        candidate = as_number(value)
        if isinstance(candidate, bool) or not isinstance(candidate, (int, float)):
            where.fail(text, value)
        try:
            result = float(candidate)
        except OverflowError:
            result = math.inf
        inside = (
            math.isfinite(result)
            and (above is None or result > above)
            and (at_least is None or result >= at_least)
            and (below is None or result < below)
            and (at_most is None or result <= at_most)
        )
        if not inside:
            where.fail(text, value)
        return result

    return check


def choice(*names: str) -> Check:
    """Check of one of a few names."""

    def check(value: object, where: Where) -> str:
        if not isinstance(value, str) or value not in names:
            where.fail(" or ".join(names), value, nearest(str(value), names).strip())
        return value

    return check


def boolean(value: object, where: Where) -> bool:
    """Check of true or false."""
    if not isinstance(value, bool):
        where.fail("true or false", value)
    return value


def text(value: object, where: Where) -> str:
    """Check of non-empty text."""
    if not isinstance(value, str) or not value.strip():
        where.fail("text", value)
    return value


def optional(check: Check) -> Check:
    """The same check, with null allowed."""
    return lambda value, where: None if value is None else check(value, where)


def section(cls: type) -> Check:
    """Check of a nested settings dataclass."""
    return lambda value, where: value if isinstance(value, cls) else build(cls, value, where)


def several(check: Check, *, lengths: tuple[int, ...] = (), distinct: bool = False) -> Check:
    """Check of a list whose items pass `check`; gives a tuple.

    Args:
        check: check of each item.
        lengths: allowed numbers of items, any when empty.
        distinct: refuse an item that occurs twice.
    """

    def check_list(value: object, where: Where) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)):
            where.fail("a list", value)
        if lengths and len(value) not in lengths:
            where.fail(f"a list of {' or '.join(map(str, lengths))} items", list(value))
        items = tuple(check(item, where.child(index)) for index, item in enumerate(value))
        if distinct and len(set(items)) < len(items):
            where.fail("a list without repetitions", list(value))
        return items

    return check_list


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys, and nodes that contain themselves."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key}' occurs twice", key_node.start_mark)
            seen.add(str(key))
        return super().construct_mapping(node, deep=deep)


def parse_yaml(content: str, source: str) -> object:
    """Value of a YAML text, with builtins only.

    Raises:
        ConfigError: bad YAML, naming source and line; a duplicate key; a structure that contains itself.
    """
    loader = None
    try:
        loader = _Loader(content)
        loader.deep_construct = True  # construct children at once: a recursive structure is then an error
        return loader.get_single_data()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(
            f"recipe: expected YAML, got bad syntax: {problem}. {source}{line}. Correct it there."
        ) from error
    except (ValueError, RecursionError) as error:  # an impossible date, a number of 5000 digits, 1000 nested brackets
        raise ConfigError(f"recipe: expected YAML, got {error}. {source}. Correct it there.") from error
    finally:
        if loader is not None:
            loader.dispose()
