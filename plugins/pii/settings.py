"""What config.yaml says of pii."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from plugins.pii.custom import Custom  # noqa: TC001 - pydantic reads it
from proxy.plugin import NotSet, PluginConfig, fault, nearest

Entity = Literal["email", "phone", "credit_card", "us_ssn", "iban", "ip_address", "secret", "url"]
Action = Literal["restore", "mask", "hash", "block", "report"]
Role = Literal["system", "developer", "user", "assistant", "tool", "function"]

KEY_CHARACTERS = 16


class Allow(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    domains: list[str] = Field(
        default_factory=list, description="email addresses at these domains, and below them, pass"
    )
    values: list[str] = Field(
        default_factory=list, description="these pass, as they are written here: test cards, a hotline"
    )


class PiiConfig(PluginConfig):
    entities: list[Entity] = Field(
        default=["email", "phone", "credit_card", "us_ssn", "iban", "ip_address", "secret"],
        description="what is looked for",
    )
    custom: list[Custom] = Field(default_factory=list, description="entities of your own")
    action: Action = Field(default="restore", description="what becomes of what is found")
    actions: dict[str, Action] = Field(default_factory=dict, description="by entity, where it is another action")
    answers: Literal["mask", "pass"] = Field(
        default="mask", description="what becomes of values that the model says and the app did not send"
    )
    unknown: Literal["scan", "block"] = Field(
        default="scan", description="requests to endpoints whose bodies are not known here: looked through, or refused"
    )
    allow: Allow = Field(default_factory=Allow, description="what passes although it would be found")
    roles: list[Role] | None = Field(
        default=None, min_length=1, description="only messages of these roles are looked through; by default all"
    )
    key: Annotated[SecretStr | None, NotSet] = Field(
        default=None,
        description="a secret of 16 characters or more, the same for all replicas: placeholders are made with it",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.names:
            raise fault("nothing is looked for", "name an entity, or switch the plugin off with `pii: off`", "entities")
        for custom in self.custom:
            if self.names.count(custom.name) > 1:
                raise fault(f"'{custom.name}' is the name of another entity", "give it one of its own", "custom")
        for name in self.actions:
            if name not in self.names:
                raise fault(f"'{name}' is not looked for", nearest(name, self.names, "entities"), "actions")
        if self.key is not None and len(self.key.get_secret_value()) < KEY_CHARACTERS:
            raise fault(f"is shorter than {KEY_CHARACTERS} characters", "make one with `openssl rand -hex 32`", "key")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """All entities, the custom ones behind the others."""
        return (*dict.fromkeys(self.entities), *(custom.name for custom in self.custom))

    def action_of(self, entity: str) -> Action:
        return self.actions.get(entity, self.action)
