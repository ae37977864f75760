"""An HTTP endpoint that is asked many things at once: bounded concurrency, timeouts, retries with back-off.

What may pass by itself is tried again: no answer in time, a broken connection, 429 and 5xx. Another refusal, or an
answer without a usable score, would only come back the same. Whatever happens to a question stays with that question.
"""

import asyncio
import base64
import dataclasses
import email.utils
import functools
import io
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import tenacity
from PIL import Image

from janus_jax.rewards.judge import MATCH, Judged

UNUSABLE = "unusable answer: "  # how the reason begins where the endpoint answers, but gives no score
LONGEST_BACKOFF_S = 20.0
LONGEST_RETRY_AFTER_S = 120.0  # a server that wants to be left alone for longer is asked again all the same
LINE = 200  # characters of a reason


class _PassesByItself(Exception):
    """A failure worth another try; its text is the reason. wait_s: how long the server asks to be left alone."""

    def __init__(self, reason: str, wait_s: float = 0.0):
        super().__init__(reason)
        self.wait_s = wait_s


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """`url` takes POSTs of JSON. At most `concurrency` questions are in flight (or waiting for their next try: a server
    in trouble gets no more); an attempt has `timeout_s` seconds from connecting to the last byte, and is followed by up
    to `retries` more after random waits, of at most `backoff_s` seconds at first, twice as much each time (full jitter:
    Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog 2015), or what its Retry-After says if that is
    longer. `transport` stands in for the network."""

    url: str
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    concurrency: int = 16
    timeout_s: float = 30.0
    retries: int = 4
    backoff_s: float = 0.5
    transport: httpx.AsyncBaseTransport | None = None

    def ask(self, jobs: Sequence, body: Callable, read: Callable) -> list[tuple[float, str]]:
        """Asks about every job: POSTs body(job), a JSON value, and takes read(answer), a score in [0, 1] or a
        ValueError that says what is wrong with the answer.

        Returns per job, in their order, (score, "") or (NaN, one line with the reason). Called from synchronous code,
        of any thread. Ctrl-C abandons all questions and raises KeyboardInterrupt (unless the caller has taken over
        SIGINT: then they run to their ends).

        A client lives as long as one call: its connections are shared by the jobs, and are closed before the pause
        until the next call, in which the server would drop them.
        """
        return _run(self._ask(jobs, body, read))

    async def _ask(self, jobs, body, read):
        gate = asyncio.Semaphore(self.concurrency)
        limits = httpx.Limits(max_connections=self.concurrency, max_keepalive_connections=self.concurrency)

        async def one(job):
            async with gate:
                try:
                    response = await self._post(client, body(job))
                except (_PassesByItself, httpx.HTTPError) as error:
                    return math.nan, one_line(str(error) or type(error).__name__)
            if not response.is_success:
                return math.nan, _refusal(response)
            return _score(response, read)

        # the timeout is ours: httpx's counts each read anew, and a trickle of bytes would never end
        async with httpx.AsyncClient(
            headers=dict(self.headers), timeout=None, limits=limits, transport=self.transport, verify=_tls()
        ) as client:
            return await asyncio.gather(*map(one, jobs))

    async def _post(self, client, body) -> httpx.Response:
        """The last attempt's response. Raises _PassesByItself where no attempt came through."""

        async def attempt():
            try:
                async with asyncio.timeout(self.timeout_s):
                    response = await client.post(self.url, json=body)
            except TimeoutError as error:
                raise _PassesByItself(f"no answer within {self.timeout_s:g} s") from error
            except httpx.TransportError as error:
                raise _PassesByItself(f"no answer: {str(error) or type(error).__name__}") from error
            if response.status_code == 429 or response.status_code >= 500:
                raise _PassesByItself(_refusal(response), retry_after(response.headers.get("retry-after", "")))
            return response

        backoff = tenacity.wait_random_exponential(multiplier=self.backoff_s, max=LONGEST_BACKOFF_S)

        # one object per question: it keeps the state of its tries in itself
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(_PassesByItself),
            stop=tenacity.stop_after_attempt(self.retries + 1),
            wait=lambda state: max(backoff(state), getattr(state.outcome.exception(), "wait_s", 0.0)),
            sleep=asyncio.sleep,
            reraise=True,
        )
        return await retrying(attempt)


@functools.cache
def _tls():
    """One for all clients: reading the certificates takes longer than a picture's score."""
    return httpx.create_ssl_context()


def _run(coroutine):
    """asyncio.run, and in a notebook, whose thread runs a loop already, the same in another thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(asyncio.run, coroutine).result()
    finally:
        pool.shutdown(wait=False)  # an interrupt is not to wait for the questions under way


def _score(response, read) -> tuple[float, str]:
    try:
        score = read(response.json())
        if isinstance(score, bool) or not isinstance(score, (int, float)) or not 0 <= score <= 1:
            raise ValueError(f"the score is {score!r}, not a number in [0, 1]")
    except ValueError as error:  # so are JSON's and Unicode's errors
        return math.nan, one_line(f"{UNUSABLE}{error}")
    except (LookupError, TypeError, AttributeError, RecursionError, OverflowError):
        return math.nan, one_line(f"{UNUSABLE}not of the expected form: {response.text}")
    return float(score), ""


def retry_after(header: str, now: float | None = None) -> float:
    """Seconds that a Retry-After header asks to wait, at most LONGEST_RETRY_AFTER_S: a number of them, or a date (RFC
    9110, section 10.2.3); 0 where it says neither. now: seconds since the epoch."""
    try:
        seconds = float(header)
    except ValueError:
        try:
            date = email.utils.parsedate_to_datetime(header)
        except ValueError:
            return 0.0
        seconds = date.timestamp() - (time.time() if now is None else now)
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S) if math.isfinite(seconds) else 0.0


def _refusal(response) -> str:
    if response.has_redirect_location:  # pictures are not sent where nobody has asked to have them sent
        target = response.url.join(response.headers["location"])
        return one_line(
            f"HTTP {response.status_code}: it redirects to {target}: if that is the judge, give its address"
        )
    return one_line(f"HTTP {response.status_code}: {response.text or response.reason_phrase}")


def one_line(text: str) -> str:
    """The text's beginning as one line."""
    return " ".join(text[: 4 * LINE].split())[:LINE]


def gathered(count: int, jobs: Sequence[tuple], outcomes: Sequence[tuple[float, str]]) -> Judged:
    """Scores of `count` pictures from jobs (number of the picture, name of the score, ...) and their outcomes: the mean
    where several are of one name. A score of which one outcome is missing is missing: a mean over the others would be
    of another scale."""
    names = list(dict.fromkeys(job[1] for job in jobs)) or [MATCH]
    totals, asked = np.zeros((2, len(names), count))
    errors = [""] * count
    for (n, name, *_), (score, error) in zip(jobs, outcomes, strict=True):
        totals[names.index(name), n] += score
        asked[names.index(name), n] += 1
        errors[n] = errors[n] or error
    return Judged(dict(zip(names, totals / asked, strict=True)), errors)


def png(image: Image.Image) -> str:
    """The picture as base64 of a PNG: lossless, as the judge is to see what was drawn."""
    data = io.BytesIO()
    image.convert("RGB").save(data, format="PNG")
    return base64.b64encode(data.getvalue()).decode("ascii")


def pngs(pictures: Iterable[Image.Image]) -> dict[int, str]:
    """The same of many, by id: one source that has many edits is encoded once."""
    return {key: png(picture) for key, picture in {id(picture): picture for picture in pictures}.items()}
