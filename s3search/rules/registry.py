"""Which rules there are: everything that lists rules asks here, each time anew."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from s3search.errors import nearest
from s3search.rules.base import RuleModel
from s3search.rules.searched import SearchedRule

_RULES: dict[str, type[RuleModel]] = {}  # by the "rule" of their JSON, in the order of columns


def register(*added: type[RuleModel]) -> None:
    """Makes rules known: schedules may have them, and searches draw those that can be drawn."""
    for rule in added:
        name = rule.model_fields["rule"].default
        solver = rule.solver if issubclass(rule, SearchedRule) else None
        if name in _RULES or (solver is not None and solver in solvers()):
            raise ValueError(f"there is a rule {name!r} or solver {solver!r} already")
        _RULES[name] = rule


@contextmanager
def registered(*added: type[RuleModel]) -> Iterator[None]:
    """Makes rules known for a while."""
    register(*added)
    try:
        yield
    finally:
        for rule in added:
            del _RULES[rule.model_fields["rule"].default]


def rules() -> dict[str, type[RuleModel]]:
    """All rules by the ``rule`` of their JSON."""
    return dict(_RULES)


def solvers() -> dict[str, type[SearchedRule]]:
    """The rules that a search may draw, by their names in ``[space] solvers``."""
    drawn = (rule for rule in _RULES.values() if issubclass(rule, SearchedRule))
    return {rule.solver: rule for rule in drawn}


def families() -> tuple[str, ...]:
    """The names that ``[space] families`` may have."""
    return tuple(dict.fromkeys(rule.family for rule in _RULES.values()))


class _ByName:
    """Validates by the "rule" key, as pydantic's discriminator would if it could take in more."""

    def __get_pydantic_core_schema__(self, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            _parsed, serialization=core_schema.simple_ser_schema("any")
        )

    def __get_pydantic_json_schema__(
        self, _: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        choices = {name: rule.__pydantic_core_schema__ for name, rule in _RULES.items()}
        return handler(core_schema.tagged_union_schema(choices, discriminator="rule"))


def _parsed(value: Any) -> RuleModel:
    if isinstance(value, RuleModel):
        name: Any = value.rule
        if _RULES.get(name) is type(value):
            return value
    elif isinstance(value, dict):
        if "rule" not in value:
            raise ValueError("a rule is named by its key 'rule', which is missing")
        name = value["rule"]
        if isinstance(name, str) and name in _RULES:
            return _RULES[name].model_validate(value)
    else:
        raise ValueError(f"a rule is an object with the key 'rule', found {value!r}")
    raise ValueError(f"there is no rule {name!r}; {nearest(str(name), _RULES)}")


AnyRule = Annotated[RuleModel, _ByName()]
"""Any rule that is known, told apart by its ``rule`` key."""
