"""One image's request to an OpenAI-compatible server: how it is sent, how the answer is read, and what can go wrong.

Answers are parsed from their bytes and not by the client library's types: a server may answer anything.
"""

import base64
import hashlib
import io
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

from caploom.captioning.backend import Generation, ImageRef
from caploom.captioning.settings import EndpointCaptioner
from caploom.errors import CaptionerError
from caploom.images.decode import ImageFault

if TYPE_CHECKING:
    import openai
    from PIL.Image import Image

REFUSED, GARBAGE, ERROR, TIMEOUT = "endpoint_refused", "endpoint_garbage", "endpoint_error", "endpoint_timeout"

_CONNECT_SECONDS = 10.0
_LONGEST_MESSAGE = 300
_NO_KEY = "unused"
# A word that begins with this much of the key is the half-masked key ("sk-abcdefgh****wxyz") that some servers echo.
_TELLING_PART = 8
_LARGEST_COUNT = 2**31
# The key, the model or the address is wrong, or the account is empty: no image would succeed. 3xx is a redirect.
_WRONG_FOR_ALL = {401, 402, 403, 404, 405, 410, *range(300, 400)}
# The client has already retried these.
_PASSING = {408, 409, 429}


class EndpointFault(Exception):
    """Why one image got no caption: `reason` is a short word to count by, `detail` one sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class _Chunk:
    """The content of one event of a stream. `is_answer`: it belongs to a chat completion at all."""

    text: str
    finish_reason: str | None
    tokens: int | None
    is_answer: bool


class EndpointClient:
    """Sends one image at a time to one server; many threads may share it.

    `url` is the server's, one of the settings'; `retries` are the retries of this server, by default the settings'. The
    constructor raises `CaptionerError` when the key's environment variable is not set or nothing answers at the url.
    """

    def __init__(self, settings: EndpointCaptioner, url: str, *, retries: int | None = None) -> None:
        import openai

        self._settings = settings
        self._url = url
        self._retries = settings.retries if retries is None else retries
        self._key = _key(settings, url)
        try:
            self._client = openai.OpenAI(
                api_key=self._key or _NO_KEY,
                base_url=url,
                max_retries=self._retries,
                timeout=openai.Timeout(settings.timeout, connect=min(settings.timeout, _CONNECT_SECONDS)),
                # A redirect would send the prompt and the images to another host, and with some clients the key too.
                http_client=openai.DefaultHttpxClient(follow_redirects=False),
            )
        except (ValueError, ImportError) as error:
            raise CaptionerError(f"{url}: the connection fails ({error}).") from None
        # Some versions of the client pass on a stream's errors as their httpx (or its successor) raised them.
        transport = import_module(openai.DefaultHttpxClient.__mro__[1].__module__.split(".")[0])
        self._broken_stream = (openai.APIError, transport.RequestError)
        self._late_stream = (openai.APITimeoutError, transport.TimeoutException)
        self._check_connection(transport.ConnectTimeout)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def ask(self, ref: ImageRef, image: "Image") -> Generation:
        """The model's answer for an image (RGB, of any size; it is scaled down in place).

        Raises `EndpointFault` for faults of this image and temporary ones, `ImageFault` when the image cannot be sent,
        and `CaptionerError` when the server would answer no image: a wrong key, model or address.
        """
        import openai

        fields = self._fields(ref, image)
        fault: Exception
        try:
            return self._streamed(fields) if self._settings.stops else self._whole(fields)
        except openai.APIStatusError as error:
            fault = self._fault_of_status(error.status_code, self._server_message(error))
        except openai.APITimeoutError:
            fault = EndpointFault(TIMEOUT, f"the server did not answer within {self._settings.timeout:g} seconds.")
        except openai.APIError as error:
            cause = error.__cause__ or error
            fault = EndpointFault(ERROR, f"the connection to the server failed ({self._message(str(cause))}).")
        # Outside the handlers, so that the server's own words, which may contain the key, are not chained to the error.
        raise fault

    def _fields(self, ref: ImageRef, image: "Image") -> dict[str, Any]:
        settings = self._settings
        decoding = settings.decoding
        content = [
            {"type": "image_url", "image_url": {"url": _data_uri(ref, image, settings)}},
            {"type": "text", "text": ref.prompted(settings.prompt)},
        ]
        system = [] if settings.system_prompt is None else [{"role": "system", "content": settings.system_prompt}]
        fields: dict[str, Any] = {
            "model": settings.model,
            "messages": [*system, {"role": "user", "content": content}],
            "max_tokens": decoding.max_new_tokens,
            "temperature": decoding.temperature if decoding.sample else 0,
            "seed": request_seed(ref.image_id, settings.seed),
        }
        if decoding.sample:
            fields["top_p"] = decoding.top_p
        if decoding.stop_strings:
            fields["stop"] = decoding.stop_strings
        if settings.stops:
            fields["stream_options"] = {"include_usage": True}
        # null leaves a field out, for servers that refuse one of these.
        return {name: value for name, value in {**fields, **settings.extra_body}.items() if value is not None}

    def _whole(self, fields: Mapping[str, Any]) -> Generation:
        response = self._client.chat.completions.with_raw_response.create(
            model=fields["model"], messages=fields["messages"], extra_body=_rest(fields)
        )
        return self._read_whole(response.content)

    def _read_whole(self, body: bytes) -> Generation:
        try:
            answer = json.loads(body)
            choice = answer["choices"][0]
            text = choice["message"].get("content")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            self._garbage(body)
        # A model that spent its tokens on reasoning, or refuses, returns no text.
        if text is None:
            text = ""
        if not isinstance(text, str):
            self._garbage(body)
        text, ended = self._until_stop_string(_readable(text))
        reason = choice.get("finish_reason")
        return Generation(text.strip(), _tokens(answer), "length" if reason == "length" and not ended else "stop")

    def _streamed(self, fields: Mapping[str, Any]) -> Generation:
        """Read a text as it arrives, and hang up as soon as no shear needs more of it."""
        for left in range(self._retries, -1, -1):
            # Until the stream begins, the client retries by itself; a stream that breaks off is left to us.
            client = self._client.with_options(max_retries=left)
            deadline = time.monotonic() + self._settings.timeout
            with client.chat.completions.create(
                model=fields["model"], messages=fields["messages"], stream=True, extra_body=_rest(fields)
            ) as stream:
                try:
                    return self._read_stream(stream, deadline)
                except self._late_stream as error:
                    broken, reason = error, TIMEOUT
                except self._broken_stream as error:
                    broken, reason = error, ERROR
            if left:
                time.sleep(min(0.5 * 2 ** (self._retries - left), 8.0))
        raise EndpointFault(reason, f"the answer broke off ({self._message(str(broken))}).")

    def _read_stream(self, stream: "openai.Stream[Any]", deadline: float) -> Generation:
        from caploom.captioning.stopping import is_settled

        text, tokens, reason, is_answer = "", None, None, False
        for chunk in self._chunks(stream):
            is_answer = is_answer or chunk.is_answer
            tokens, reason = chunk.tokens or tokens, chunk.finish_reason or reason
            text, ended = self._until_stop_string(text + chunk.text)
            if ended:
                return Generation(_readable(text).strip(), tokens, "stop")
            if chunk.text and is_settled(text.lstrip(), self._settings.stops):
                # The characters after the last word may be why it is settled: they stay.
                return Generation(_readable(text).lstrip(), tokens, "shear")
            if time.monotonic() > deadline:
                raise EndpointFault(TIMEOUT, f"the answer took more than {self._settings.timeout:g} seconds.")
        if not is_answer:
            raise EndpointFault(GARBAGE, "the server's stream has neither a text nor an end.")
        return Generation(_readable(text).strip(), tokens, "length" if reason == "length" else "stop")

    def _chunks(self, stream: "openai.Stream[Any]") -> Iterator[_Chunk]:
        try:
            for event in stream:
                fields = event.model_dump(warnings=False)
                choice = (fields.get("choices") or [{}])[0]
                text = (choice.get("delta") or {}).get("content") or ""
                yield _Chunk("" + text, choice.get("finish_reason"), _tokens(fields), bool(choice))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            garbage = self._message(str(error))
        else:
            return
        raise EndpointFault(GARBAGE, f"the server's stream is not a chat completion ({garbage}).")

    def _until_stop_string(self, text: str) -> tuple[str, bool]:
        """The text before the first stop string, which some servers leave in, and whether there was one."""
        ends = [text.find(stop) for stop in self._settings.decoding.stop_strings if stop in text]
        return (text[: min(ends)], True) if ends else (text, False)

    def _garbage(self, body: bytes) -> NoReturn:
        shown = self._message(body.decode(errors="replace"))
        raise EndpointFault(GARBAGE, f"the server's answer is not a chat completion ({shown or 'empty'}).") from None

    def _fault_of_status(self, status: int, message: str) -> Exception:
        sentence = f"the server answers {status}: {message or 'nothing more'}"
        if status in _WRONG_FOR_ALL:
            return CaptionerError(f"{self._url}: {sentence}; {self._advice(status)}.")
        if status >= 500 or status in _PASSING:
            return EndpointFault(ERROR, f"{sentence}.")
        return EndpointFault(REFUSED, f"{sentence}.")

    def _server_message(self, error: "openai.APIStatusError") -> str:
        elsewhere = error.response.headers.get("location")
        return self._message(f"moved to {elsewhere}" if elsewhere else error.body or error.response.text)

    def _advice(self, status: int) -> str:
        settings = self._settings
        if status in (401, 403):
            where = (
                f"the variable {settings.api_key_env}" if settings.api_key_env else "a variable named by `api_key_env`"
            )
            return f'put a key that may use "{settings.model}" into {where}'
        if status == 402:
            return "the account of the key is out of credit: top it up"
        models = self.models()[:10] if status == 404 else []
        has = f"; it has: {', '.join(models)}" if models else ""
        return f'correct the captioner\'s `url` or its `model`, "{settings.model}"{has}'

    def models(self) -> list[str]:
        """The models that the server lists; empty when it lists none."""
        import openai

        try:
            listed = json.loads(self._quickly().models.with_raw_response.list().content)
            return sorted(self._message(model["id"]) for model in listed["data"])
        except (openai.OpenAIError, ValueError, KeyError, TypeError):
            return []

    def _check_connection(self, connect_timeout: type[Exception]) -> None:
        import openai

        try:
            self._quickly().models.with_raw_response.list()
        except openai.APIStatusError:
            return  # a server is there
        except (openai.APIConnectionError, ValueError) as error:
            cause = error.__cause__ or error
            if isinstance(error, openai.APITimeoutError) and not isinstance(cause, connect_timeout):
                return  # busy, or unable to list its models: the first images will show
            why = self._message(str(cause))
        else:
            return
        self._client.close()
        raise CaptionerError(
            f"{self._url}: nothing answers there ({why}); start the server or correct the captioner's `url`."
        )

    def _quickly(self) -> "openai.OpenAI":
        seconds = min(self._settings.timeout, _CONNECT_SECONDS)
        return self._client.with_options(max_retries=min(1, self._retries), timeout=seconds)

    def _message(self, body: Any) -> str:
        """The sentence in a server's error, on one line, short, without the key."""
        while isinstance(body, Mapping):
            known = [body[name] for name in ("message", "detail", "error") if body.get(name)]
            body = known[0] if known else json.dumps(body, default=str)
        text = re.sub(r"<[^>]*>", " ", _readable(str(body)))
        text = " ".join(self._without_key(text).split()).rstrip(". ")
        return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]}..."

    def _without_key(self, text: str) -> str:
        if self._key is None:
            return text
        for written in (self._key, json.dumps(self._key)[1:-1], quote(self._key, safe="")):
            text = text.replace(written, "[key]")
        if len(self._key) >= 2 * _TELLING_PART:
            text = re.sub(re.escape(self._key[:_TELLING_PART]) + r"\S*", "[key]", text)
        return text


def request_seed(image_id: str, seed: int) -> int:
    """The seed of an image's request: 31 bits derived from both, so that a resumed run draws the same."""
    return int.from_bytes(hashlib.sha256(f"{image_id}\n{seed}".encode()).digest()[:4], "big") >> 1


def _key(settings: EndpointCaptioner, url: str) -> str | None:
    if settings.api_key_env is None:
        return None
    key = os.environ.get(settings.api_key_env, "").strip()
    if not key:
        raise CaptionerError(f"{url}: the environment variable {settings.api_key_env} is not set; put the key into it.")
    if not (key.isascii() and key.isprintable()):
        raise CaptionerError(
            f"{url}: the environment variable {settings.api_key_env} contains characters that no key has; "
            "put the bare key into it."
        )
    return key


def _data_uri(ref: ImageRef, image: "Image", settings: EndpointCaptioner) -> str:
    from PIL import Image

    image.thumbnail((settings.image_side, settings.image_side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    file = io.BytesIO()
    try:
        if settings.image_format == "jpeg":
            image.save(file, "JPEG", quality=95, subsampling=0)
        else:
            image.save(file, "PNG", compress_level=1)
    except OSError as error:
        raise ImageFault(
            "unsendable_image",
            f"{ref.image}: {image.width} x {image.height} pixels cannot become a {settings.image_format} ({error}).",
        ) from None
    return f"data:image/{settings.image_format};base64,{base64.b64encode(file.getvalue()).decode()}"


def _rest(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in ("model", "messages")}


def _tokens(answer: Mapping[str, Any]) -> int | None:
    usage = answer.get("usage")
    count = usage.get("completion_tokens") if isinstance(usage, Mapping) else None
    return count if type(count) is int and 0 <= count < _LARGEST_COUNT else None


def _readable(text: str) -> str:
    """The text with surrogate pairs joined, and lone surrogates, which no file can contain, replaced."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
