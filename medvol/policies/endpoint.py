"""EndpointPolicy: a model behind any server that speaks the OpenAI chat protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from medvol.core.errors import ConfigError, MissingExtraError, PolicyError
from medvol.core.prompts import Prompt, PromptTemplate
from medvol.core.ranges import require_whole
from medvol.core.roles import Policy
from medvol.core.server_address import require_address
from medvol.core.specs import identify_component
from medvol.core.types import Completion, Sampling
from medvol.grounding.box_units import BoxUnits, ask_in, read_pixels, require_units
from medvol.policies.endpoint_parts.apart import run_apart, run_together
from medvol.policies.endpoint_parts.asker import Asker
from medvol.policies.endpoint_parts.dialect import Dialect
from medvol.policies.endpoint_parts.fault import RequestFaultError
from medvol.policies.endpoint_parts.key import DEFAULT_VARIABLE, Key, require_variable
from medvol.policies.endpoint_parts.settings import RequestSettings
from medvol.policies.endpoint_parts.spending import Spending
from medvol.rollouts.kept_outcomes import KeptOutcomes, Outcome

if TYPE_CHECKING:
    from medvol.policies.endpoint_parts.connection import Connection

_EXAMPLE = "http://127.0.0.1:8000/v1"
_KEY_PLACE = ", and put the key into the environment variable that key_variable names"


class EndpointPolicy(Policy):
    """A served model: vLLM, SGLang, Ollama, ``transformers serve``, or a provider. The slices are sent to the server.

    The query is sent as it is: names of special tokens in it mean what the server's tokenizer takes them for.

    Args:
        url: Base address of the server, such as ``http://127.0.0.1:8000/v1``.
        model: Name under which the server has the model.
        template: Layout of the prompts; the default one when None.
        key_variable: Environment variable that holds the key, which is sent and never kept; null sends none.
        box_units: What the model writes boxes in: ``thousandths`` of the slice, as the grammar does, or ``pixels`` of
            the slice as it is shown, which are brought to the grammar's units.
        max_new_tokens: Most tokens of an answer, in place of what the run asks for: a model that reasons first needs
            more. None leaves it to the run.
        requests: How the server is asked, and until when.
    """

    def __init__(
        self,
        url: str,
        model: str,
        template: PromptTemplate | None = None,
        key_variable: str | None = DEFAULT_VARIABLE,
        box_units: BoxUnits = "thousandths",
        max_new_tokens: int | None = None,
        requests: RequestSettings = RequestSettings(),
    ) -> None:
        require_address("url", url, _EXAMPLE, _KEY_PLACE)
        require_variable(key_variable)
        if not model.strip():
            raise ConfigError("model is empty; give the name under which the server has the model")
        require_units(box_units)
        require_whole(1, max_new_tokens=max_new_tokens)
        self.url = url
        self.model = model
        self.key_variable = key_variable
        self.box_units: BoxUnits = box_units
        self.max_new_tokens = max_new_tokens
        self.requests = requests
        self._template = template
        self._spending = Spending(requests)
        self._ready = False
        self._dialect = Dialect()
        self._kept = KeptOutcomes()

    @property
    def template(self) -> PromptTemplate:
        """The layout that was given, else the default one; the default instruction names the units of the boxes."""
        return ask_in(self.box_units, self._template or PromptTemplate())

    def identity(self) -> Mapping[str, Any]:
        """Name, distribution, address, model and all else that changes an answer."""
        return identify_component(self, leave_out=("key_variable", "requests"))

    def require_ready(self) -> None:
        """See once that the key is there, and that the server is there and takes it.

        Raises:
            ConfigError: One of them is not.
            MissingExtraError: httpx is not installed.
        """
        if self._ready:
            return
        key = Key(self.key_variable, self.url)
        if self.key_variable not in (None, DEFAULT_VARIABLE) and not key.is_set:
            raise ConfigError(
                f"policy.key_variable names the environment variable {self.key_variable}, which is not set; put the "
                "key into it, or send none (null)"
            )
        try:
            run_apart(lambda: self._knock(key))
        except RequestFaultError as fault:
            raise ConfigError(key.hide(f"{self.url} {fault}")) from None
        self._ready = True

    def generate(
        self, prompts: Sequence[Prompt], n: int = 1, sampling: Sampling | None = None
    ) -> list[list[Completion]]:
        """Let the server write completions, for several prompts at once.

        Where one of several prompts fails, what became of each is kept for the next call, and whoever then asks for
        each alone, as the pipeline does, is given it: nothing is asked and paid for twice.

        Raises:
            PolicyError: A prompt got no answer.
            ConfigError: The key cannot be used.
            MissingExtraError: httpx is not installed.
        """
        sampling = sampling or Sampling()
        if self.max_new_tokens is not None:
            sampling = replace(sampling, max_new_tokens=self.max_new_tokens)
        return self._kept.answer(prompts, n, sampling, lambda: run_apart(lambda: self._ask(prompts, n, sampling)))

    async def _knock(self, key: Key) -> None:
        async with self._connect(key) as connection:
            await connection.knock()

    def _connect(self, key: Key) -> Connection:
        try:
            from medvol.policies.endpoint_parts.connection import Connection
        except ModuleNotFoundError as error:
            if error.name != "httpx":
                raise
            raise MissingExtraError("httpx", "endpoint") from error
        return Connection(self.url, key, self.requests.timeout_s)

    async def _ask(self, prompts: Sequence[Prompt], n: int, sampling: Sampling) -> list[Outcome]:
        async with self._connect(Key(self.key_variable, self.url)) as connection:
            asker = Asker(connection, self.model, self.requests, self._spending, self._dialect)
            outcomes = await run_together(asker.ask(prompt, n, sampling) for prompt in prompts)
        return [self._read(prompt, outcome) for prompt, outcome in zip(prompts, outcomes, strict=True)]

    def _read(self, prompt: Prompt, outcome: Outcome) -> Outcome:
        """Completions in the grammar's units."""
        if isinstance(outcome, PolicyError) or self.box_units == "thousandths":
            return outcome
        height, width = prompt.template.height_px, prompt.template.width_px
        return [replace(said, text=read_pixels(said.text, height, width)) for said in outcome]
