"""A LiteLLM configuration is loaded as if it were ours, and what is dropped of it is told."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

import router
from router import Router
from router.cli.convert import without_secrets
from router.config import Config, Deployment, ProviderFacts, Vocabulary, convert_file, load_data
from router.config import load_file as load_from
from router.errors import ConfigError
from router.ids import Kind
from router.litellm.deployments import _DEFAULT_KEYS
from router.litellm.models import _PROVIDERS
from router.router import VOCABULARY as OURS
from router.testing import StandIn
from router.types import Operation

FEW = frozenset({Operation.GENERATION, Operation.STATUS, Operation.CONTENT})
VOCABULARY = Vocabulary(
    providers={
        "openai": ProviderFacts(frozenset(Operation), "openai"),
        "azure": ProviderFacts(frozenset(Operation), "openai"),
        "runwayml": ProviderFacts(FEW, "runwayml"),
        "vllm-omni": ProviderFacts(FEW, "openai"),
    },
    strategies=(
        "lowest-completion",
        "lowest-latency",
        "least-busy",
        "lowest-cost",
        "weighted-random",
    ),
)
URL = "https://videos.example/v1"
KEY = "sk-9f8e7d6c5b4a"

# As they are found at companies: mostly chat, keys here and there, a decade of settings.
CHAT = """\
  - model_name: gpt-4o
    litellm_params: &eu
      model: azure/gpt-4o-eu
      api_base: os.environ/AZURE_API_BASE_EU
      api_key: os.environ/AZURE_API_KEY_EU
      api_version: "2024-10-21"
      rpm: 600
      tpm: 120000
  - model_name: gpt-4o
    litellm_params: {<<: *eu, model: azure/gpt-4o-ca, api_base: os.environ/AZURE_API_BASE_CA}
  - model_name: gpt-35
    litellm_params: {model: azure/chatgpt-v-2, api_base: "https://x.openai.azure.com/", api_key: k}
  - {model_name: gpt-5-mini, litellm_params: {model: gpt-5-mini, region_name: eu}}
  - {model_name: o3, litellm_params: {model: openai/o3, api_key: os.environ/OPENAI_API_KEY}}
  - {model_name: o4-mini, litellm_params: {model: o4-mini, api_key: os.environ/OPENAI_API_KEY}}
  - {model_name: claude, litellm_params: {model: anthropic/claude-sonnet-4-20250514}}
  - {model_name: claude-bare, litellm_params: {model: claude-opus-4-20250514}}
  - {model_name: haiku, litellm_params: {model: "bedrock/us.anthropic.claude-haiku-4-5-v1:0"}}
  - {model_name: reel, litellm_params: {model: bedrock/amazon.nova-reel-v1:1}}
  - {model_name: gemini, litellm_params: {model: gemini/gemini-2.5-pro}}
  - {model_name: veo, litellm_params: {model: vertex_ai/veo-3.1-generate-001, vertex_project: p}}
  - {model_name: llama, litellm_params: {model: groq/llama-3.3-70b}, model_info: {mode: chat}}
  - {model_name: deepseek, litellm_params: {model: deepseek/deepseek-chat}}
  - {model_name: mistral, litellm_params: {model: mistral/mistral-large-latest}}
  - {model_name: mistral-embed, litellm_params: {model: mistral/mistral-embed}}
  - {model_name: rerank, litellm_params: {model: cohere/rerank-english-v3.0}}
  - {model_name: ollama, litellm_params: {model: ollama_chat/qwen3, api_base: "http://gpu:11434"}}
  - {model_name: local, litellm_params: {model: openai/facebook/opt-125m, api_base: "http://gpu"}}
  - {model_name: local2, litellm_params: {model: hosted_vllm/Qwen/Qwen3-32B, api_base: "http://g"}}
  - {model_name: llava, litellm_params: {model: openai/llava-hf/llava-v1.6-vicuna-7b-hf}}
  - {model_name: fake-openai-endpoint, litellm_params: {model: openai/fake, api_base: "http://f"}}
  - {model_name: my-model, litellm_params: {model: azure/our-deployment, api_base: "https://a"}}
  - {model_name: sage, litellm_params: {model: sagemaker/llama, input_cost_per_second: 0.0004}}
  - {model_name: whisper, litellm_params: {model: azure/whisper-eu}}
  - {model_name: tts, litellm_params: {model: openai/tts-1-hd}}
  - {model_name: dall-e-3, litellm_params: {model: dall-e-3}, model_info: {mode: image_generation}}
  - {model_name: image, litellm_params: {model: openai/gpt-image-1}}
  - {model_name: ada, litellm_params: {model: azure/emb, api_base: "https://a"},
     model_info: {mode: embedding, base_model: text-embedding-ada-002}}
  - {model_name: instruct, litellm_params: {model: text-completion-openai/gpt-3.5-turbo-instruct}}
  - {model_name: watch, litellm_params: {model: openai/gpt-4o}, model_info: {id: video-captions}}
  - {model_name: "*", litellm_params: {model: "openai/*", api_key: os.environ/OPENAI_API_KEY}}
  - {model_name: "anthropic/*", litellm_params: {model: "anthropic/*"}}
"""
SETTINGS = """\
litellm_settings:
  drop_params: true
  num_retries: 5
  request_timeout: 240
  telemetry: false
  set_verbose: false
  callbacks: [langfuse, otel]
  cache: true
  cache_params: {type: redis, host: os.environ/CACHE_HOST, password: hunter2hunter2}
  context_window_fallbacks: [{gpt-35: [gpt-4o]}]
router_settings:
  routing_strategy: latency-based-routing
  num_retries: 3
  allowed_fails: 3
  cooldown_time: 30
  redis_host: os.environ/REDIS_HOST
  redis_port: os.environ/REDIS_PORT
  redis_password: os.environ/REDIS_PASSWORD
  enable_pre_call_checks: true
  model_group_alias: {video: sora-2, gpt-4: gpt-4o, film: {model: sora-2, hidden: true}}
  fallbacks: [{sora-2-pro: [sora-2, gpt-4o]}, {gpt-4o: [claude]}]
general_settings:
  master_key: sk-1234-master
  database_url: "postgresql://user:passpass@db/litellm"
guardrails:
  - {guardrail_name: pii, litellm_params: {guardrail: presidio, mode: pre_call, api_key: sk-guard}}
"""
VIDEO = f"""\
  - model_name: sora-2
    litellm_params:
      model: openai/sora-2
      api_base: {URL}
      api_key: os.environ/ACME_API_KEY
      organization: org-1
      extra_headers: {{X-Team: os.environ/TEAM}}
      rpm: 30
      tpm: 1000
      max_parallel_requests: 4
      timeout: 90
      weight: 3
      order: 2
      output_cost_per_second: 0.10
    model_info: {{id: acme-sora, mode: video_generation}}
  - model_name: sora-2-pro
    litellm_params: {{model: azure/sora-2-pro, api_base: "https://swe.openai.azure.com/",
      api_key: {KEY}, api_version: preview}}
  - model_name: gen4
    litellm_params: {{model: runwayml/gen4_turbo, api_key: os.environ/RUNWAYML_API_SECRET}}
"""
REAL = f"model_list:\n{CHAT}{VIDEO}{SETTINGS}"
ENVIRON = {
    "ACME_API_KEY": "sk-acme-1",
    "TEAM": "film",
    "RUNWAYML_API_SECRET": "key_runway",
    "REDIS_HOST": "redis.internal",
    "REDIS_PORT": "6380",
    "REDIS_PASSWORD": "pass",
}

Load = Callable[..., Config]


def model(name: str, /, group: str = "films", **changes: Any) -> dict[str, Any]:
    """An entry of `model_list`; `info` is its `model_info`."""
    info = changes.pop("info", {})
    params = {"model": name, "api_base": URL, "api_key": KEY} | changes
    return {"model_name": group, "litellm_params": params, "model_info": info}


def load(*entries: Any, environ: dict[str, str] | None = None, **sections: Any) -> Config:
    data = {"model_list": list(entries)} | sections
    return load_data(data, environ=environ or {}, vocabulary=VOCABULARY)


def one(name: str, /, **changes: Any) -> Deployment:
    (deployment,) = load(model(name, **changes)).deployments
    return deployment


def refused(*entries: Any, environ: dict[str, str] | None = None, **sections: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(*entries, environ=environ, **sections)
    return list(caught.value.problems)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "litellm.yaml"


@pytest.fixture
def real(file: Path) -> Path:
    file.write_text(REAL)
    return file


def load_file(path: Path, environ: dict[str, str]) -> Config:
    return load_from(path, environ=environ, vocabulary=VOCABULARY)


class TestARealFile:
    def test_its_video_models_are_the_deployments(self, real: Path) -> None:
        acme, azure, runway = load_file(real, ENVIRON).deployments

        assert (acme.id, acme.model_names) == ("acme-sora", ("sora-2", "video", "film"))
        assert (acme.provider, acme.model, acme.base_url) == ("openai", "sora-2", URL)
        assert (acme.account, acme.api_key) == ("acme", SecretStr("sk-acme-1"))
        assert acme.headers == {
            "openai-organization": SecretStr("org-1"),
            "x-team": SecretStr("film"),
        }
        assert (acme.weight, acme.order, acme.timeout, acme.cost_per_second) == (3, 2, 90, 0.1)
        assert (acme.limits.rpm, acme.limits.max_parallel_requests) == (30, 4)
        assert (azure.provider, azure.model, azure.api_key) == (
            "azure",
            "sora-2-pro",
            SecretStr(KEY),
        )
        assert azure.base_url == "https://swe.openai.azure.com/openai/v1?api-version=preview"
        assert (runway.provider, runway.model) == ("runwayml", "gen4_turbo")
        assert runway.base_url == "https://api.dev.runwayml.com/v1"

    def test_its_settings_are_ours(self, real: Path) -> None:
        settings = load_file(real, ENVIRON).settings

        assert (settings.strategy, settings.retries, settings.timeout) == (
            "lowest-latency",
            3,
            240.0,
        )
        assert settings.redis_url == SecretStr("redis://:pass@redis.internal:6380")
        assert settings.fallbacks == {"sora-2-pro": ("sora-2",)}

    def test_one_warning_names_what_was_dropped(self, real: Path) -> None:
        (warning,) = load_file(real, ENVIRON).warnings

        assert warning.startswith(f"{real}:1: model_list: 3 of 36 models of this LiteLLM")
        assert "\n" not in warning
        entries = yaml.safe_load(f"model_list:\n{CHAT}")["model_list"]
        for name in (entry["litellm_params"]["model"] for entry in entries):
            assert name in warning
        for name in ("router_settings.allowed_fails", "litellm_settings.callbacks", "guardrails"):
            assert name in warning
        assert "litellm_params.tpm" in warning
        assert "fallbacks.sora-2-pro to gpt-4o" in warning
        assert "model_group_alias.gpt-4," in warning
        for name in ("set_verbose", "telemetry", "gpt-4o-eu.rpm", "region_name"):
            assert name not in warning

    def test_no_secret_of_it_is_told(self, real: Path) -> None:
        config = load_file(real, ENVIRON)
        _, notes = convert_file(real, vocabulary=VOCABULARY)

        for secret in (KEY, "sk-acme-1", "hunter2", "sk-1234", "passpass", "sk-guard"):
            assert secret not in "\n".join((repr(config), *config.warnings, *notes))

    def test_what_is_skipped_needs_no_variable(self, real: Path) -> None:
        # AZURE_API_KEY_EU and the like are not in ENVIRON.
        assert len(load_file(real, ENVIRON).deployments) == 3
        with pytest.raises(ConfigError) as caught:
            load_file(real, {})
        assert set(re.findall(r"variable (\w+) is not set", str(caught.value))) == {
            "ACME_API_KEY",
            "TEAM",
            "RUNWAYML_API_SECRET",
            "REDIS_HOST",
            "REDIS_PORT",
            "REDIS_PASSWORD",
        }

    def test_a_note_stands_on_its_line(self, real: Path) -> None:
        _, notes = convert_file(real, vocabulary=VOCABULARY)

        lines = REAL.splitlines()
        placed = [(int(note.removeprefix(f"{real}:").split(":")[0]), note) for note in notes]
        assert placed == sorted(placed, key=lambda pair: pair[0])
        by_key = {note.split(": ")[1]: lines[line - 1] for line, note in placed}
        assert "cooldown_time" in by_key["router_settings.cooldown_time"]
        assert "tpm: 1000" in by_key["model_list[33].litellm_params.tpm"]
        assert "claude-opus-4" in by_key["model_list[7]"]

    def test_converted_it_says_the_same(self, real: Path, tmp_path: Path) -> None:
        made, _ = convert_file(real, vocabulary=VOCABULARY)
        data, names = without_secrets(made.data)
        ours = tmp_path / "deployments.yaml"
        ours.write_text(yaml.safe_dump(data))

        assert names == ("SWE_OPENAI_AZURE_COM_API_KEY",)
        assert KEY not in ours.read_text()
        loaded = load_file(ours, ENVIRON | {"SWE_OPENAI_AZURE_COM_API_KEY": KEY})
        original = load_file(real, ENVIRON)
        assert loaded.settings == original.settings
        assert loaded.accounts == original.accounts
        assert loaded.deployments == original.deployments
        assert loaded.warnings == ()

    def test_a_router_serves_it_and_logs_the_warning_once(
        self, file: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with StandIn(accounts={"sk-acme": "acme"}) as provider:
            video = VIDEO.partition("  - model_name: sora-2-pro")[0].replace(URL, provider.base_url)
            file.write_text(f"model_list:\n{CHAT}{video}")
            environ = {"ACME_API_KEY": "sk-acme", "TEAM": "film"}
            with (
                caplog.at_level(logging.WARNING, "router"),
                Router.from_yaml(file, environ=environ) as router,
            ):
                made = router.video_generation(prompt="A heron lands", model="sora-2")
                assert made.routing.deployment == "acme-sora"
                (record,) = [r for r in caplog.records if "LiteLLM" in r.getMessage()]
                assert "azure/gpt-4o-eu" in record.getMessage()
                native = router.describe_id(made.id).copies[0].native_id
                foreign = _litellm_id("acme-sora", native)
                assert router.video_status(foreign).id == made.id


def _litellm_id(deployment: str, native: str) -> str:
    import base64

    said = f"litellm:custom_llm_provider:openai;model_id:{deployment};{Kind.VIDEO}_id:{native}"
    return f"video_{base64.b64encode(said.encode()).decode()}"


class TestWhichModelsAreVideoModels:
    @pytest.mark.parametrize(
        ("name", "provider", "upstream"),
        [
            ("openai/sora-2", "openai", "sora-2"),
            ("sora-2", "openai", "sora-2"),
            ("azure/sora-2", "azure", "sora-2"),
            ("runwayml/gen4_turbo", "runwayml", "gen4_turbo"),
            ("runwayml/gemini_omni_flash", "runwayml", "gemini_omni_flash"),
            ("runwayml/of-tomorrow", "runwayml", "of-tomorrow"),
            ("openai/Wan-AI/Wan2.2-T2V-A14B", "openai", "Wan-AI/Wan2.2-T2V-A14B"),
            ("hosted_vllm/Wan-AI/Wan2.2-I2V", "vllm-omni", "Wan-AI/Wan2.2-I2V"),
            ("openai/hunyuan-video", "openai", "hunyuan-video"),
            ("openai/minimax-video-01", "openai", "minimax-video-01"),
            ("openai/image-to-video", "openai", "image-to-video"),
            ("openai/veo-3.1", "openai", "veo-3.1"),
        ],
    )
    def test_a_name_tells(self, name: str, provider: str, upstream: str) -> None:
        taken = one(name)
        assert (taken.provider, taken.model) == (provider, upstream)

    @pytest.mark.parametrize(
        "name",
        [
            "openai/gpt-4o",
            "o3",
            "azure/whisper",
            "openai/gpt-image-1",
            "openai/sora-image",
            "openai/Qwen/Qwen2-VL",
            "runwayml/gen4_image",
            "runwayml/eleven_multilingual_v2",
        ],
    )
    def test_a_name_tells_that_it_is_none(self, name: str) -> None:
        (problem,) = refused(model(name))
        assert "not a video model (1 of them)" in problem

    def test_the_mode_beats_the_name(self) -> None:
        assert one("openai/gpt-film", info={"mode": "video_generation"}).model == "gpt-film"
        assert "not a video model" in refused(model("openai/sora-2", info={"mode": "chat"}))[0]

    def test_of_a_nameless_one_the_price_the_base_or_the_group_tells(self) -> None:
        priced = one("openai/house-1", output_cost_per_video_per_second=0.2)
        assert priced.cost_per_second == 0.2
        assert one("azure/prod-eu", info={"base_model": "azure/sora-2"}).model == "prod-eu"
        assert one("azure/prod-eu", group="sora-2").model == "prod-eu"
        assert (
            "not a video model"
            in refused(model("azure/prod-eu", group="sora-2", input_cost_per_token=1e-6))[0]
        )

    def test_one_that_says_nothing_is_skipped_with_what_would_keep_it(self) -> None:
        config = load(model("openai/house-1"), model("openai/sora-2"))
        assert [d.model for d in config.deployments] == ["sora-2"]
        assert (
            "openai/house-1 (nothing says that it makes videos, as `model_info: {mode: "
            in (config.warnings[0])
        )

    def test_custom_llm_provider_names_the_provider(self) -> None:
        taken = one("house/sora-2", custom_llm_provider="openai")
        assert (taken.provider, taken.model) == ("openai", "house/sora-2")
        assert one("azure/sora-2", custom_llm_provider="azure").model == "sora-2"

    def test_where_none_is_the_reasons_are_counted(self) -> None:
        (problem,) = refused(model("anthropic/claude-4"), model("gpt-4o"), model("o3"))
        assert problem == (
            "<dict>: model_list: none of its models can be taken: of a provider that is not "
            "spoken here (1 of them); not a video model (2 of them); "
            "allowed: azure, openai, runwayml, vllm-omni"
        )

    def test_a_mocked_answer_is_not_turned_into_a_paid_one(self) -> None:
        config = load(model("openai/sora-2", mock_response="hi"), model("sora-2-pro"))
        assert [d.model for d in config.deployments] == ["sora-2-pro"]
        assert "mock_response" in config.warnings[0]

    def test_a_paused_one_gets_no_new_work(self) -> None:
        assert one("sora-2", info={"blocked": True}).weight == 0


class TestAddresses:
    @pytest.mark.parametrize(
        ("base", "version", "url"),
        [
            ("https://r.openai.azure.com", None, "https://r.openai.azure.com/openai/v1"),
            ("https://r.openai.azure.com/openai/v1/", None, "https://r.openai.azure.com/openai/v1"),
            (
                "https://r.openai.azure.com/openai/deployments/sora/",
                "2025-04-01-preview",
                "https://r.openai.azure.com/openai/v1?api-version=2025-04-01-preview",
            ),
            ("https://apim.example/team", None, "https://apim.example/team/openai/v1"),
            ("https://h?a=b", "preview", "https://h/openai/v1?a=b&api-version=preview"),
            ("https://h?api-version=v1", "preview", "https://h/openai/v1?api-version=v1"),
        ],
    )
    def test_of_azure_are_those_of_its_v1(self, base: str, version: object, url: str) -> None:
        assert one("azure/sora-2", api_base=base, api_version=version).base_url == url

    def test_of_azure_may_be_variables(self) -> None:
        entry = model("azure/sora-2", api_base="os.environ/BASE", api_version="os.environ/VERSION")
        environ = {"BASE": "https://r.openai.azure.com", "VERSION": "preview"}
        (taken,) = load(entry, environ=environ).deployments
        assert taken.base_url == "https://r.openai.azure.com?api-version=preview"

    def test_what_is_not_written_is_what_litellm_takes(self) -> None:
        environ = {
            "OPENAI_API_KEY": "sk-openai",
            "AZURE_API_KEY": "azure-key",
            "AZURE_API_BASE": "https://r.openai.azure.com",
            "RUNWAYML_API_SECRET": "key_runway",
        }
        bare = {"api_base": None, "api_key": None}
        config = load(
            *(model(name, **bare) for name in ("sora-2", "azure/sora-2", "runwayml/gen4.5")),
            environ=environ,
        )
        taken = [(d.base_url, d.api_key, d.account) for d in config.deployments]
        assert taken == [
            ("https://api.openai.com/v1", SecretStr("sk-openai"), "openai"),
            ("https://r.openai.azure.com", SecretStr("azure-key"), "azure"),
            ("https://api.dev.runwayml.com/v1", SecretStr("key_runway"), "runwayml"),
        ]
        assert "to be looked at: sora-2 (goes to api.openai.com, which closed" in config.warnings[0]

    @pytest.mark.parametrize(
        ("name", "variable", "provider", "upstream", "url"),
        [
            (
                "gemini/veo-3.1-generate-preview",
                "GEMINI_API_KEY",
                "gemini",
                "veo-3.1-generate-preview",
                "https://generativelanguage.googleapis.com/v1beta",
            ),
            (
                "xai/grok-imagine-video",
                "XAI_API_KEY",
                "xai",
                "grok-imagine-video",
                "https://api.x.ai/v1",
            ),
            (
                "fal_ai/fal-ai/sora-2/text-to-video",
                "FAL_AI_API_KEY",
                "fal",
                "fal-ai/sora-2/text-to-video",
                "https://queue.fal.run",
            ),
            (
                "openrouter/google/veo-3.1",
                "OPENROUTER_API_KEY",
                "openrouter",
                "google/veo-3.1",
                "https://openrouter.ai/api/v1",
            ),
            (
                "runwayml/gen4_turbo",
                "RUNWAYML_API_SECRET",
                "runwayml",
                "gen4_turbo",
                "https://api.dev.runwayml.com/v1",
            ),
        ],
    )
    def test_of_the_living_providers_each_is_found_by_its_name_alone(
        self, name: str, variable: str, provider: str, upstream: str, url: str
    ) -> None:
        data = {"model_list": [model(name, api_base=None, api_key=None)]}
        config = load_data(data, environ={variable: "sk-living"}, vocabulary=OURS)
        (taken,) = config.deployments
        assert (taken.provider, taken.model, taken.base_url) == (provider, upstream, url)
        assert taken.api_key == SecretStr("sk-living")
        assert config.warnings == ()

    @pytest.mark.parametrize(
        ("base", "url"),
        [
            ("https://proxy.example/google", "https://proxy.example/google/v1beta"),
            ("https://proxy.example/v1beta/", "https://proxy.example/v1beta/"),
        ],
    )
    def test_of_gemini_are_told_without_the_version(self, base: str, url: str) -> None:
        entry = model("gemini/veo-3.1-generate-preview", api_base=base)
        (taken,) = load_data({"model_list": [entry]}, environ={}, vocabulary=OURS).deployments
        assert taken.base_url.rstrip("/") == url.rstrip("/")

    def test_no_key_goes_to_a_server_that_the_file_does_not_pair_it_with(self) -> None:
        config = load(model("openai/sora-2", api_key=None), environ={"OPENAI_API_KEY": "sk-openai"})
        assert config.deployments[0].api_key is None
        assert "has no `api_key`" in config.warnings[0]
        served = load(model("hosted_vllm/wan2.2", api_key=None))
        assert served.warnings == ()

    def test_the_page_names_all_providers_that_are_taken(self) -> None:
        page = (Path(router.__file__).parent / "docs" / "from-litellm.md").read_text()
        told = page.partition("A model is taken where its provider is")[2].partition(", and it is")
        said = re.sub(r"\(here.*?\)", "", told[0])
        assert set(re.findall(r"`(.*?)`", said)) == {*_DEFAULT_KEYS, *_PROVIDERS}

    def test_a_vllm_needs_an_address(self) -> None:
        (problem,) = refused(model("hosted_vllm/wan2.2", api_base=None))
        assert problem.startswith("<dict>: model_list[0].base_url: is required")

    def test_a_credential_fills_in_what_an_entry_does_not_say(self) -> None:
        named = model("sora-2", litellm_credential_name="acme", api_base=None)
        del named["litellm_params"]["api_key"], named["litellm_params"]["api_base"]
        values = {"api_base": URL, "api_key": "os.environ/ACME_KEY"}
        credentials = [{"credential_name": "acme", "credential_values": values}]
        config = load(named, environ={"ACME_KEY": "sk-acme"}, credential_list=credentials)
        assert config.deployments[0].base_url == URL
        assert config.deployments[0].api_key == SecretStr("sk-acme")
        assert config.warnings == ()
        (problem,) = refused(named, credential_list=credentials)
        assert "credential_list[0].credential_values.api_key: the variable ACME_KEY" in problem

    def test_the_file_may_set_variables_itself(self) -> None:
        entry = model("sora-2", api_key="os.environ/ACME_KEY")
        config = load(entry, environment_variables={"ACME_KEY": "sk-from-file"})
        assert config.deployments[0].api_key == SecretStr("sk-from-file")
        assert config.warnings == ()

    def test_what_the_file_sets_for_nobody_here_is_told(self) -> None:
        entry = model("sora-2", api_key="os.environ/ACME_KEY")
        variables = {"ACME_KEY": "sk-from-file", "LANGFUSE_KEY": "lf-hidden", "NOTHING": None}
        (told,) = load(entry, environment_variables=variables).warnings
        assert (
            "environment_variables.LANGFUSE_KEY, environment_variables.NOTHING (nothing that is"
            " taken reads it)"
        ) in told
        assert "ACME_KEY" not in told
        assert "lf-hidden" not in told

    def test_a_variable_that_the_file_takes_from_another_has_to_be_set(self) -> None:
        entry = model("sora-2", api_key="os.environ/ACME_KEY")
        variables = {"ACME_KEY": "os.environ/OTHER"}
        (told,) = load(entry, environment_variables=variables, environ={"ACME_KEY": KEY}).warnings
        assert "environment_variables.ACME_KEY (is another variable's value" in told

    def test_variables_that_are_no_mapping_are_a_mistake(self) -> None:
        (problem,) = refused(model("sora-2"), environment_variables=["ACME_KEY=x"])
        assert problem == "<dict>: environment_variables: must be a mapping"


class TestAccountsAndIds:
    def test_one_key_at_one_address_is_one_account(self) -> None:
        config = load(
            model("sora-2", api_key="os.environ/ACME_API_KEY"),
            model("sora-2-pro", api_key="os.environ/ACME_API_KEY", api_base=f"{URL}/"),
            model("sora-2", api_key="os.environ/BETA_KEY"),
            environ={"ACME_API_KEY": "sk-acme", "BETA_KEY": "sk-beta"},
        )
        assert [d.account for d in config.deployments] == ["acme", "acme", "beta"]

    def test_a_version_of_the_api_makes_no_other_account(self) -> None:
        base = "https://r.openai.azure.com"
        config = load(
            model("azure/sora-2", api_base=base, api_version="v1"),
            model("azure/sora-2", api_base=base, api_version="preview"),
        )
        first, second = config.deployments
        assert first.account == second.account == "r.openai.azure.com"
        assert (first.base_url[-2:], second.base_url[-7:]) == ("v1", "preview")

    def test_accounts_are_named_by_what_stays(self) -> None:
        config = load(
            model("sora-2", api_key="os.environ/OPENAI_API_KEY"),
            model("sora-2", api_key="os.environ/OPENAI_API_KEY", api_base="https://b.example/v1"),
            model("sora-2", api_key="os.environ/KEY"),
            model("sora-2", api_key="literal-1", info={"id": "paris"}),
            model("sora-2", api_key="literal-2"),
            environ={"OPENAI_API_KEY": "sk-1", "KEY": "sk-2"},
        )
        assert [d.account for d in config.deployments] == [
            "openai",
            "openai-b.example",
            "videos.example",
            "paris",
            "videos.example-2",
        ]

    def test_ids_are_litellms_own_or_readable(self) -> None:
        config = load(
            model("sora-2", group="sora-2", info={"id": 7}),
            model("sora-2", group="sora-2"),
            model("sora-2", group="sora-2"),
            model("sora-2", group="my films", info={"id": "sora-2-7-2"}),
        )
        assert [d.id for d in config.deployments] == [
            "7",
            "sora-2-7",
            "sora-2-7-3",
            "sora-2-7-2",
        ]

    def test_an_id_that_stands_twice_is_told_in_the_files_words(self) -> None:
        entries = (model("gpt-4o"), model("sora-2", info={"id": "a"}))
        (problem,) = refused(*entries, model("sora-2", info={"id": "a"}))
        assert problem == (
            "<dict>: model_list[2].model_info.id: the id `a` is taken: it is model_list[1]'s; "
            "ids are unique"
        )

    def test_two_variables_with_one_key_are_told_where_they_stand(self) -> None:
        (problem,) = refused(
            model("sora-2", api_key="os.environ/A_KEY"),
            model("sora-2", api_key="os.environ/B_KEY"),
            environ={"A_KEY": "same", "B_KEY": "same"},
        )
        assert problem.startswith("<dict>: model_list[1].litellm_params.api_key: the same base_url")
        assert problem.endswith("name one variable for both")


class TestSettings:
    @pytest.mark.parametrize(
        ("theirs", "ours"),
        [
            ("simple-shuffle", "weighted-random"),
            ("latency-based-routing", "lowest-latency"),
            ("cost-based-routing", "lowest-cost"),
            ("least-busy", "least-busy"),
            ("lowest-completion", "lowest-completion"),
            (None, "lowest-completion"),
        ],
    )
    def test_strategies(self, theirs: str | None, ours: str) -> None:
        config = load(model("sora-2"), router_settings={"routing_strategy": theirs})
        assert config.settings.strategy == ours
        assert config.warnings == ()

    def test_what_is_dropped_for_all_is_dropped_by_each_that_does_not_say(self) -> None:
        models = (model("sora-2"), model("sora-2-pro", drop_params=False))
        config = load(*models, litellm_settings={"drop_params": True})
        assert [d.drop_params for d in config.deployments] == [True, False]
        assert config.warnings == ()
        named = model("sora-2", drop_params="os.environ/DROP")
        assert load(named, environ={"DROP": "true"}).deployments[0].drop_params
        assert not one("sora-2").drop_params

    def test_what_stands_once_and_is_wrong_is_told_once(self) -> None:
        models = (model("sora-2"), model("sora-2-pro"))
        (problem,) = refused(*models, litellm_settings={"drop_params": "perhaps"})
        assert problem == "<dict>: litellm_settings.drop_params: must be true or false"

    def test_another_strategy_is_refused_with_the_nearest(self) -> None:
        settings = {"routing_strategy": "usage-based-routing-v2"}
        (problem,) = refused(model("sora-2"), router_settings=settings)
        assert problem.startswith("<dict>: router_settings.routing_strategy: `usage-based-routing-")
        assert "here it is `least-busy`; allowed: " in problem

    def test_the_routers_own_settings_come_first(self) -> None:
        config = load(
            model("sora-2"),
            router_settings={"num_retries": 0, "timeout": 30},
            litellm_settings={"num_retries": 4, "request_timeout": 600},
        )
        assert (config.settings.retries, config.settings.timeout) == (0, 30)

    def test_a_redis_in_parts_is_a_url(self) -> None:
        parts = {"redis_host": "h", "redis_port": 6380, "redis_password": "p@/s#", "redis_db": 2}
        config = load(model("sora-2"), router_settings=parts)
        assert config.settings.redis_url == SecretStr("redis://:p%40%2Fs%23@h:6380/2")
        assert config.warnings == ()
        whole = load(model("sora-2"), router_settings={"redis_url": "os.environ/U"} | parts,
                     environ={"U": "rediss://r"})  # fmt: skip
        assert whole.settings.redis_url == SecretStr("rediss://r")

    def test_a_password_from_a_variable_is_encoded_where_it_becomes_part_of_a_url(
        self, file: Path
    ) -> None:
        parts = {"redis_host": "os.environ/H", "redis_password": "os.environ/P"}
        environ = {"H": "[::1]", "P": "p@/s#%41"}
        config = load(model("sora-2"), router_settings=parts, environ=environ)
        assert config.settings.redis_url == SecretStr("redis://:p%40%2Fs%23%2541@[::1]")
        assert config.warnings == ()

        data = {"model_list": [model("sora-2")], "router_settings": parts}
        file.write_text(yaml.safe_dump(data))
        made, (note,) = convert_file(file, vocabulary=VOCABULARY)
        assert made.data["settings"]["redis_url"] == "redis://:${P}@${H}"
        assert note.endswith(
            "router_settings.redis_password: becomes part of a URL, so its special characters must"
            " be percent-encoded"
        )

    def test_default_fallbacks_are_those_of_groups_without_any(self) -> None:
        entries = [model("sora-2", group=group, info={"id": group}) for group in "abc"]
        settings = {
            "fallbacks": [{"a": ["b", {"model": "b", "api_key": KEY}]}],
            "default_fallbacks": ["c"],
        }
        config = load(*entries, litellm_settings=settings)
        assert config.settings.fallbacks == {"a": ("b",), "b": ("c",)}
        assert "fallbacks.a to (a mapping)" in config.warnings[0]

    def test_an_alias_is_a_second_name(self) -> None:
        aliases = {"alias_1": "films", "films": "films", "other": {"model": "nobody's"}}
        config = load(
            model("sora-2"),
            router_settings={"model_group_alias": aliases, "fallbacks": [{"alias_1": ["films"]}]},
        )
        assert config.deployments[0].model_names == ("films", "alias_1")
        assert config.settings.fallbacks == {"alias_1": ("films",)}
        assert "model_group_alias.films (is the name of a group as well)" in config.warnings[0]
        assert "model_group_alias.other (names a group that is not here)" in config.warnings[0]

    def test_an_argument_of_litellms_router_is_told_its_place(self) -> None:
        config = load(model("sora-2"), routing_strategy="least-busy", fallbacks=[])
        assert "routing_strategy (belongs under `router_settings`)" in config.warnings[0]

    def test_other_files_are_not_read_and_that_is_told(self) -> None:
        config = load(model("sora-2"), include=["more.yaml"])
        assert "include (other files are not read)" in config.warnings[0]


class TestWhatIsRefused:
    def test_everything_at_once_with_the_lines_of_the_file(self, file: Path) -> None:
        file.write_text(
            "model_list:\n"
            "- model_name: films\n"
            "  litellm_params:\n"
            "    model: openai/sora-2\n"
            "    api_base: videos.example\n"
            "    rpm: -1\n"
            "    api_key: os.environ/MY-KEY\n"
            "- 3\n"
            "- model_name: films\n"
            "- {model_name: x, litellm_params: {api_key: k}}\n"
            "router_settings:\n"
            "  num_retries: many\n"
            "  fallbacks: films\n"
            "litellm_settings: 7\n"
        )
        with pytest.raises(ConfigError) as caught:
            load_file(file, {})
        places = [line.removeprefix(f"{file}:").split(": ")[:2] for line in caught.value.problems]
        assert places == [
            ["5", "model_list[0].litellm_params.api_base"],
            ["6", "model_list[0].litellm_params.rpm"],
            ["7", "model_list[0].litellm_params.api_key"],
            ["8", "model_list[1]"],
            ["9", "model_list[2].litellm_params"],
            ["10", "model_list[3].litellm_params.model"],
            ["12", "router_settings.num_retries"],
            ["13", "router_settings.fallbacks"],
            ["14", "litellm_settings"],
        ]
        with pytest.raises(ConfigError) as again:
            convert_file(file, vocabulary=VOCABULARY)
        assert again.value.problems == caught.value.problems

    @pytest.mark.parametrize("listed", [None, [], {}, "sora-2"])
    def test_a_file_without_models(self, listed: Any) -> None:
        with pytest.raises(ConfigError) as caught:
            load_data(
                {"model_list": listed, "router_settings": {}}, environ={}, vocabulary=VOCABULARY
            )
        assert caught.value.problems == (
            "<dict>: model_list: must be a list of at least one model",
        )

    @pytest.mark.parametrize("ours", ["deployments", "accounts", "settings"])
    def test_both_forms_in_one_file(self, ours: str) -> None:
        problems = refused(model("sora-2"), **{ours: {}})
        assert any(
            "model_list: is LiteLLM's form, beside ours: a file is in one of them" in problem
            for problem in problems
        )

    def test_a_forgotten_blank_shows_no_key(self, file: Path) -> None:
        params = "{model: sora-2, api_base: 'https://h', api_key:" + KEY + "}"
        file.write_text(f"model_list: [{{model_name: films, litellm_params: {params}}}]")
        with pytest.raises(ConfigError) as caught:
            load_file(file, {})
        assert "is no key; is a blank missing" in str(caught.value)
        assert KEY not in str(caught.value)

    def test_an_address_in_place_of_a_model_shows_no_password(self) -> None:
        config = load(model("sora-2"), model(f"https://user:{KEY}@host"))
        assert KEY not in config.warnings[0]

    def test_a_missing_name_of_the_group(self) -> None:
        entry = model("sora-2")
        del entry["model_name"]
        assert refused(entry)[0].startswith("<dict>: model_list[0].model_name: is required")

    @pytest.mark.parametrize("odd", [[KEY], {"a": KEY}, 5, True, ("a", 1)])
    @pytest.mark.parametrize(
        "key",
        ["api_base", "api_key", "api_version", "headers", "organization", "custom_llm_provider"],
    )
    def test_no_odd_value_is_more_than_a_refusal(self, key: str, odd: Any) -> None:
        for name in ("openai/sora-2", "azure/sora-2"):
            try:
                load(model(name, **{key: odd}))
            except ConfigError as error:
                assert KEY not in str(error)  # noqa: PT017  # it may as well be taken

    def test_ours_is_nothing_to_convert(self, file: Path) -> None:
        file.write_text(f"deployments: [{{id: a, model_name: m, base_url: '{URL}'}}]")
        with pytest.raises(ConfigError, match="is not in LiteLLM's form"):
            convert_file(file, vocabulary=VOCABULARY)


WORDS = (
    "a sora-2 openai/sora-2 azure/x runwayml/y os.environ/A os.environ/- ${A} ${ https://h/v1"
    " https://u:p4ssw0rd@h http://[ * least-busy"
)
NAMES = (
    "model_name litellm_params model_info model api_base api_key api_version custom_llm_provider"
    " headers id mode rpm weight order timeout a:b credential_name credential_values"
    " litellm_credential_name sora-2 blocked fallbacks default_fallbacks model_group_alias"
    " routing_strategy redis_host redis_password num_retries output_cost_per_second A"
)
SCALARS = st.none() | st.booleans() | st.integers(-2, 99) | st.sampled_from(["", *WORDS.split()])
KEYS = st.sampled_from(NAMES.split())
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=12,
)
PARAMS = st.dictionaries(KEYS, ANYTHING, max_size=5).map(lambda more: {"model": "sora-2"} | more)
MODELS = st.fixed_dictionaries(
    {"litellm_params": PARAMS},
    optional={"model_name": ANYTHING, "model_info": ANYTHING, "blocked": st.booleans()},
)
SECTIONS = st.fixed_dictionaries(
    {"model_list": st.lists(MODELS | ANYTHING, max_size=4) | ANYTHING},
    optional=dict.fromkeys(
        ["router_settings", "litellm_settings", "credential_list", "environment_variables", "x"],
        ANYTHING,
    ),
)


@given(SECTIONS)
def test_whatever_is_written_is_loaded_or_refused(data: dict[str, Any]) -> None:
    told: tuple[str, ...]
    try:
        config = load_data(data, environ={"A": "1"}, vocabulary=VOCABULARY)
    except ConfigError as error:
        told = error.problems
    else:
        assert config.deployments
        told = ("", *config.warnings)
    assert told
    assert "p4ssw0rd" not in "".join(told)
