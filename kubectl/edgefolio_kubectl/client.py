"""API client: reads four kinds, writes annotations, over the official client.

Users' kubeconfigs have exec plug-ins, proxies and certificates; the official client supports them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import urllib3
import yaml
from kubernetes import client, config

from edgefolio.errors import EdgefolioError, UserError
from edgefolio.kubernetes.access import SERVICE_ACCOUNT
from edgefolio.specification.resource import API_VERSION
from edgefolio_kubectl.object_lookup import nearest
from edgefolio_kubectl.views import Object

MANAGER = "kubectl-edgefolio"
GROUP, VERSION = API_VERSION.split("/")
#: Seconds to connect and to read.
_TIMEOUTS = (5, 30)
_PAGE = 500


class ApiRequestFailed(EdgefolioError):  # noqa: N818
    """The API server does not answer or refuses; the message is one line with the remedy."""


class NotFound(EdgefolioError):  # noqa: N818
    """The API server has no such object."""


class Cluster:
    """The API server of a kubeconfig's context; ``namespace`` is the default for names."""

    def __init__(self, *, kubeconfig: str | None, context: str | None, namespace: str | None) -> None:
        """Raises :class:`UserError` if the kubeconfig cannot be used."""
        self.namespace, api = _connect(kubeconfig, context, namespace)
        self._server = api.configuration.host
        self._custom = client.CustomObjectsApi(api)
        self._core = client.CoreV1Api(api)
        # Client versions differ in the patch type that they send for a dictionary.
        self._patching = client.ApiClient(api.configuration, "Content-Type", "application/merge-patch+json")
        self._clock_offset = 0.0

    def now(self) -> float:
        """Seconds since the epoch by the API server's clock: ages do not depend on the user's own."""
        return time.time() + self._clock_offset

    def portfolios(self, namespace: str | None) -> list[Object]:
        """The ModelPortfolios of ``namespace``, of all namespaces if it is ``None``."""
        return self._listed("modelportfolios", namespace)

    def endpoints(self, namespace: str | None) -> list[Object]:
        """The ModelEndpoints of ``namespace``, of all namespaces if it is ``None``."""
        return self._listed("modelendpoints", namespace)

    def pod(self, name: str) -> Object:
        """One pod. Raises :class:`NotFound`."""
        return self._request(lambda **options: self._core.read_namespaced_pod(name, self.namespace, **options))

    def node(self, name: str) -> Object:
        """One node. Raises :class:`NotFound`."""
        return self._request(lambda **options: self._core.read_node(name, **options))

    def annotate_pod(self, name: str, annotations: Mapping[str, str | None]) -> None:
        """Set annotations of a pod; ``None`` removes one. Raises :class:`NotFound`."""
        body = {"metadata": {"annotations": dict(annotations)}}
        core = client.CoreV1Api(self._patching)
        self._request(
            lambda **options: core.patch_namespaced_pod(name, self.namespace, body, field_manager=MANAGER, **options)
        )

    def annotate_portfolio(self, name: str, annotations: Mapping[str, str | None]) -> None:
        """Set annotations of a ModelPortfolio; ``None`` removes one. Raises :class:`NotFound`."""
        body = {"metadata": {"annotations": dict(annotations)}}
        custom = client.CustomObjectsApi(self._patching)
        self._request(
            lambda **options: custom.patch_namespaced_custom_object(
                GROUP, VERSION, self.namespace, "modelportfolios", name, body, field_manager=MANAGER, **options
            )
        )

    def _listed(self, plural: str, namespace: str | None) -> list[Object]:
        items: list[Object] = []
        token: str | None = None
        while True:
            page = {"limit": _PAGE, **({"_continue": token} if token else {})}

            def ask(page: Mapping[str, Any] = page, **options: Any) -> Any:
                if namespace is None:
                    return self._custom.list_cluster_custom_object(GROUP, VERSION, plural, **page, **options)
                return self._custom.list_namespaced_custom_object(GROUP, VERSION, namespace, plural, **page, **options)

            try:
                answer = self._request(ask)
            except NotFound as error:
                raise ApiRequestFailed(
                    f"{self._server} knows no {plural}.{GROUP}: Edgefolio is not installed there. "
                    "Install it with Helm, or name another --context."
                ) from error
            items += answer.get("items", ())
            token = answer.get("metadata", {}).get("continue")
            if not token:
                return items

    def _request(self, request: Callable[..., Any]) -> Object:
        """The answer's raw JSON: the client's models drop newer fields."""
        try:
            answer = request(_preload_content=False, _request_timeout=_TIMEOUTS)
            date = answer.headers.get("Date")
            if date is not None:
                self._clock_offset = parsedate_to_datetime(date).timestamp() - time.time()
            document: Object = json.loads(answer.data)
            return document
        except client.ApiException as error:
            raise self._failure(error) from error
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise ApiRequestFailed(
                f"{self._server} does not answer ({_root(error)}). Check: kubectl get --raw /readyz"
            ) from error

    def _failure(self, error: client.ApiException) -> EdgefolioError:
        message = _error_message(error)
        if error.status == 404:
            return NotFound(message)
        if error.status == 401:
            return ApiRequestFailed(f"{self._server} does not know you (401). Log in again, or name another --context.")
        if error.status == 403:
            return ApiRequestFailed(
                f"{message}. Ask for the role edgefolio-view (to look) or the role edit (to change pods)."
            )
        return ApiRequestFailed(f"{self._server} refuses ({error.status}): {message}")


def _connect(kubeconfig: str | None, context: str | None, namespace: str | None) -> tuple[str, Any]:
    """Default namespace and client from the kubeconfig; in a pod without one, from its service account."""
    try:
        contexts, active = config.list_kube_config_contexts(config_file=kubeconfig)
    except (config.ConfigException, OSError, yaml.YAMLError) as error:
        if kubeconfig is None and context is None and (found := _service_account()) is not None:
            return namespace or found[0], found[1]
        raise UserError(
            f"no cluster is named ({_first_line(error)}).",
            field="--kubeconfig",
            value=kubeconfig,
            remedy="Name a kubeconfig, or set KUBECONFIG.",
        ) from error
    if context is not None:
        names = [entry["name"] for entry in contexts]
        active = next((entry for entry in contexts if entry["name"] == context), None)
        if active is None:
            raise UserError(
                "the kubeconfig has no such context.", field="--context", value=context, remedy=nearest(context, names)
            )
    try:
        api = config.new_client_from_config(config_file=kubeconfig, context=context)
    except (config.ConfigException, OSError, ValueError) as error:
        raise UserError(
            f"the kubeconfig cannot be used ({_first_line(error)}).",
            field="--kubeconfig",
            value=kubeconfig,
            remedy="Correct it; `kubectl get nodes` must work with it.",
        ) from error
    return namespace or active["context"].get("namespace") or "default", api


def _service_account() -> tuple[str, Any] | None:
    try:
        config.load_incluster_config()
        return (SERVICE_ACCOUNT / "namespace").read_text(encoding="utf-8").strip(), client.ApiClient()
    except (config.ConfigException, OSError):
        return None


def _error_message(error: client.ApiException) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason or error.status)


def _root(error: BaseException) -> str:
    """The innermost cause, in one line: urllib3's wrappers tell users nothing."""
    cause = getattr(error, "reason", None)
    return _root(cause) if isinstance(cause, BaseException) else _first_line(error)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
