"""The workload kinds, PodDisruptionBudget and HorizontalPodAutoscaler."""

from __future__ import annotations

import re
from typing import Any

from netsim.kube.fault import Faults, Go, show
from netsim.kube.selectors import matches
from netsim.kube.validate import meta, names, pod

Json = dict[str, Any]


def deployment(faults: Faults, body: Json) -> None:
    spec = body["spec"]
    meta.at_least_zero(faults, spec, "spec", "replicas")
    _selected_template(faults, spec, "deployment")
    _strategy(faults, spec.get("strategy") or {})
    meta.at_least_zero(faults, spec, "spec", "minReadySeconds", "revisionHistoryLimit")
    deadline = spec.get("progressDeadlineSeconds")
    if deadline is not None:
        meta.at_least_zero(faults, spec, "spec", "progressDeadlineSeconds")
        if deadline <= spec.get("minReadySeconds", 0):
            faults.invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds")


def replica_set(faults: Faults, body: Json) -> None:
    spec = body["spec"]
    meta.at_least_zero(faults, spec, "spec", "replicas", "minReadySeconds")
    _selected_template(faults, spec, "deployment")  # the server's own slip: it says deployment here too


def stateful_set(faults: Faults, body: Json) -> None:
    spec = body["spec"]
    policy = spec.get("podManagementPolicy", "")
    if not policy:
        faults.required("spec.podManagementPolicy")
    elif policy not in ("OrderedReady", "Parallel"):
        faults.invalid("spec.podManagementPolicy", policy, "must be 'OrderedReady' or 'Parallel'")
    strategy = spec.get("updateStrategy") or {}
    kind, rolling = strategy.get("type", ""), strategy.get("rollingUpdate")
    if not kind:
        faults.required("spec.updateStrategy")
    elif kind == "OnDelete":
        if rolling is not None:
            told = "only allowed for updateStrategy 'RollingUpdate'"
            faults.invalid("spec.updateStrategy.rollingUpdate", rolling, told)
    elif kind != "RollingUpdate":
        faults.invalid("spec.updateStrategy", strategy, "must be 'RollingUpdate' or 'OnDelete'")
    elif rolling is not None:
        meta.at_least_zero(faults, rolling, "spec.updateStrategy.rollingUpdate", "partition")
    meta.at_least_zero(faults, spec, "spec", "replicas", "minReadySeconds", "revisionHistoryLimit")
    meta.at_least_zero(faults, spec.get("ordinals") or {}, "spec.ordinals", "start")
    # The pod spec of a StatefulSet's template is not validated; its labels are only matched.
    _selector(faults, spec, "statefulset", required=True)
    _restart_always(faults, spec)


def daemon_set(faults: Faults, body: Json) -> None:
    spec = body["spec"]
    selector, template = spec.get("selector"), spec.get("template") or {}
    if selector is not None:
        _selector_itself(faults, selector)
    if selector == {} or (selector is not None and not any(selector.values())):
        _empty_selector(faults, "daemonset")
    elif not _malformed(selector) and not matches(selector, _labels(template)):
        _mismatch(faults, template)
    pod.template(faults, template, "spec.template")
    _restart_always(faults, spec)
    meta.at_least_zero(faults, spec, "spec", "minReadySeconds")
    strategy = spec.get("updateStrategy") or {}
    kind, rolling = strategy.get("type", ""), strategy.get("rollingUpdate") or {}
    if kind == "RollingUpdate":
        _daemon_rolling(faults, rolling)
    elif kind != "OnDelete":
        faults.unsupported("spec.updateStrategy.type", kind, ("OnDelete", "RollingUpdate"))
    meta.at_least_zero(faults, spec, "spec", "revisionHistoryLimit")


def _daemon_rolling(faults: Faults, rolling: Json) -> None:
    path = "spec.updateStrategy.rollingUpdate"
    unavailable, surge = rolling.get("maxUnavailable", 0), rolling.get("maxSurge", 0)
    for name, value in (("maxUnavailable", unavailable), ("maxSurge", surge)):
        _int_or_percent(faults, value, f"{path}.{name}")
        _not_over_100(faults, value, f"{path}.{name}")
    if not _is_zero(unavailable) and not _is_zero(surge):
        faults.invalid(f"{path}.maxSurge", Go(surge), "may not be set when maxUnavailable is non-zero")
    elif _is_zero(unavailable) and _is_zero(surge):
        faults.required(f"{path}.maxUnavailable", "cannot be 0 when maxSurge is 0")


def replication_controller(faults: Faults, body: Json) -> None:
    spec = body["spec"]
    meta.at_least_zero(faults, spec, "spec", "replicas", "minReadySeconds")
    selector, template = spec.get("selector") or {}, spec.get("template")
    meta.labels(faults, selector, "spec.selector")
    if not selector:
        faults.required("spec.selector")
    if template is None:
        faults.required("spec.template")
        return
    if selector and any(_labels(template).get(key) != value for key, value in selector.items()):
        _mismatch(faults, template)
    pod.template(faults, template, "spec.template")
    _restart_always(faults, spec)


def job(faults: Faults, body: Json) -> None:
    _job_spec(faults, body["spec"], "spec")


def _job_spec(faults: Faults, spec: Json, path: str) -> None:
    meta.at_least_zero(
        faults,
        spec,
        path,
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
    )
    mode = spec.get("completionMode", "NonIndexed")
    if mode not in ("NonIndexed", "Indexed"):
        faults.unsupported(f"{path}.completionMode", mode, ("Indexed", "NonIndexed"))
    elif mode == "Indexed" and "completions" not in spec:
        faults.required(f"{path}.completions", "when completion mode is Indexed")
    if spec.get("selector") is not None:
        meta.selector(faults, spec["selector"], f"{path}.selector")
    template = spec.get("template") or {}
    pod.template(faults, template, f"{path}.template")
    policy = (template.get("spec") or {}).get("restartPolicy", "")
    if policy in ("", "Always"):
        faults.required(f"{path}.template.spec.restartPolicy", 'valid values: "OnFailure", "Never"')
    elif policy not in ("OnFailure", "Never"):
        faults.unsupported(f"{path}.template.spec.restartPolicy", policy, ("OnFailure", "Never"))


def cron_job(faults: Faults, body: Json) -> None:
    spec = body["spec"]
    schedule = spec.get("schedule", "")
    if not schedule:
        faults.required("spec.schedule")
    elif not _is_schedule(schedule):
        faults.invalid(
            "spec.schedule", schedule, "expected five fields (minute hour day-of-month month day-of-week) or @daily …"
        )
    meta.at_least_zero(
        faults, spec, "spec", "startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"
    )
    policy = spec.get("concurrencyPolicy", "")
    if policy not in ("Allow", "Forbid", "Replace"):
        faults.unsupported("spec.concurrencyPolicy", policy, ("Allow", "Forbid", "Replace"))
    inner = (spec.get("jobTemplate") or {}).get("spec") or {}
    if inner.get("selector") is not None:
        faults.invalid("spec.jobTemplate.spec.selector", inner["selector"], "`selector` will be auto-generated")
    if inner.get("manualSelector"):
        faults.unsupported("spec.jobTemplate.spec.manualSelector", True, ("nil", "false"))
    _job_spec(faults, {key: value for key, value in inner.items() if key != "selector"}, "spec.jobTemplate.spec")


def cron_job_name(name: str) -> names.Wrong:
    too_long = ("must be no more than 52 characters",) if len(name) > 52 else ()
    return names.subdomain(name) + too_long


_CRON_NAMED = "jan feb mar apr may jun jul aug sep oct nov dec sun mon tue wed thu fri sat"
_CRON_WORDS = frozenset(_CRON_NAMED.split())
_CRON_LIMITS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
_CRON_ITEM = re.compile(r"(?:[*?]|(\w+)(?:-(\w+))?)(?:/(\d+))?", re.ASCII)
_CRON_NAMES = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")


def _is_schedule(text: str) -> bool:
    text = re.sub(r"^(TZ|CRON_TZ)=\S+\s+", "", text.strip())
    if text.startswith("@"):
        return text in _CRON_NAMES or bool(re.fullmatch(r"@every\s+(\d+(\.\d+)?(h|m|s|ms|us|ns))+", text))
    fields = text.split()
    return len(fields) == 5 and all(
        _is_cron_item(item, low, high) for field, (low, high) in zip(fields, _CRON_LIMITS) for item in field.split(",")
    )


def _is_cron_item(item: str, low: int, high: int) -> bool:
    found = _CRON_ITEM.fullmatch(item)
    if not found or found[3] == "0":
        return False
    bounds = [low if bound.lower() in _CRON_WORDS and high in (12, 6) else int(bound) if bound.isdigit() else -1
              for bound in (found[1], found[2]) if bound is not None]  # fmt: skip
    return all(low <= bound <= high for bound in bounds)


# -- selectors and templates -------------------------------------------------------------------------------------------
def _selected_template(faults: Faults, spec: Json, kind: str) -> None:
    _selector(faults, spec, kind, required=True)
    if spec.get("template") is None:
        faults.required("spec.template")
        return
    pod.template(faults, spec["template"], "spec.template")
    _restart_always(faults, spec)


def _selector(faults: Faults, spec: Json, kind: str, required: bool) -> None:
    selector, template = spec.get("selector"), spec.get("template") or {}
    if selector is None:
        if required:
            faults.required("spec.selector")
        _mismatch(faults, template)
        return
    _selector_itself(faults, selector)
    if not any(selector.values()):
        _empty_selector(faults, kind)
    elif _malformed(selector):
        faults.invalid("spec.selector", selector, "invalid label selector")
    elif not matches(selector, _labels(template)):
        _mismatch(faults, template)


def _selector_itself(faults: Faults, selector: Json) -> None:
    meta.selector(faults, selector, "spec.selector")


def _malformed(selector: Json | None) -> bool:
    trial = Faults()
    meta.selector(trial, selector, "")
    return bool(trial.found)


def _empty_selector(faults: Faults, kind: str) -> None:
    shown = "v1.LabelSelector{MatchLabels:map[string]string(nil), MatchExpressions:[]v1.LabelSelectorRequirement(nil)}"
    faults.invalid("spec.selector", Go(shown), f"empty selector is invalid for {kind}")


def _mismatch(faults: Faults, template: Json) -> None:
    labels = _labels(template)
    shown = show(labels) if labels else "map[string]string(nil)"
    faults.invalid("spec.template.metadata.labels", Go(shown), "`selector` does not match template `labels`")


def _labels(template: Json) -> dict[str, str]:
    return (template.get("metadata") or {}).get("labels") or {}


def _restart_always(faults: Faults, spec: Json) -> None:
    found = (spec.get("template") or {}).get("spec") or {}
    policy = found.get("restartPolicy", "Always")
    if policy != "Always":
        faults.unsupported("spec.template.spec.restartPolicy", policy, ("Always",))
    if found.get("activeDeadlineSeconds") is not None:
        faults.forbidden(
            "spec.template.spec.activeDeadlineSeconds", "activeDeadlineSeconds in ReplicaSet is not Supported"
        )


def _strategy(faults: Faults, strategy: Json) -> None:
    kind, rolling = strategy.get("type", ""), strategy.get("rollingUpdate")
    path = "spec.strategy.rollingUpdate"
    if kind == "Recreate":
        if rolling is not None:
            faults.forbidden(path, "may not be specified when strategy `type` is 'Recreate'")
    elif kind == "RollingUpdate":
        if rolling is None:
            faults.required(path, "this should be defaulted and never be nil")
            return
        unavailable, surge = rolling.get("maxUnavailable", 0), rolling.get("maxSurge", 0)
        _int_or_percent(faults, unavailable, f"{path}.maxUnavailable")
        _int_or_percent(faults, surge, f"{path}.maxSurge")
        if _is_zero(unavailable) and _is_zero(surge):
            faults.invalid(f"{path}.maxUnavailable", Go(unavailable), "may not be 0 when `maxSurge` is 0")
        _not_over_100(faults, unavailable, f"{path}.maxUnavailable")
    else:
        faults.unsupported("spec.strategy.type", kind, ("Recreate", "RollingUpdate"))


def _int_or_percent(faults: Faults, value: int | str, path: str) -> None:
    if isinstance(value, str):
        faults.all_invalid(path, Go(value), names.percent(value))
    elif value < 0:
        faults.invalid(path, value, "must be greater than or equal to 0")


def _is_zero(value: int | str) -> bool:
    return value == 0 if isinstance(value, int) else not value.rstrip("%").strip("0")


def _not_over_100(faults: Faults, value: int | str, path: str) -> None:
    if isinstance(value, str) and not names.percent(value) and int(value[:-1][:9]) > 100:
        faults.invalid(path, Go(value), "must not be greater than 100%")


# -- policy and autoscaling --------------------------------------------------------------------------------------------
def disruption_budget(faults: Faults, body: Json) -> None:
    spec = body.get("spec") or {}
    if "minAvailable" in spec and "maxUnavailable" in spec:
        faults.invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set")
    for name in ("minAvailable", "maxUnavailable"):
        if name in spec:
            _int_or_percent(faults, spec[name], f"spec.{name}")
            _not_over_100(faults, spec[name], f"spec.{name}")
    meta.selector(faults, spec.get("selector"), "spec.selector")
    policy = spec.get("unhealthyPodEvictionPolicy")
    if policy is not None and policy not in ("AlwaysAllow", "IfHealthyBudget"):
        faults.unsupported("spec.unhealthyPodEvictionPolicy", policy, ("AlwaysAllow", "IfHealthyBudget"))


def autoscaler(faults: Faults, body: Json) -> None:
    spec = body.get("spec") or {}
    low, high = spec.get("minReplicas", 1), spec.get("maxReplicas", 0)
    if low < 1:
        faults.invalid("spec.minReplicas", low, "must be greater than or equal to 1")
    if high < 1:
        faults.invalid("spec.maxReplicas", high, "must be greater than 0")
    if high < low:
        faults.invalid("spec.maxReplicas", high, "must be greater than or equal to `minReplicas`")
    target = spec.get("scaleTargetRef") or {}
    for name in ("kind", "name"):
        if not target.get(name):
            faults.required(f"spec.scaleTargetRef.{name}")
        else:
            faults.all_invalid(f"spec.scaleTargetRef.{name}", target[name], names.path_segment(target[name]))
