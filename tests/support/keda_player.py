"""Plays KEDA and the HorizontalPodAutoscaler that it creates, for one ScaledObject. Pure.

The arithmetic is that of KEDA's scale executor and Prometheus scaler, and that of the HPA for an
external metric with an average value. Their documentation describes both:

- https://keda.sh/docs/latest/reference/scaledobject-spec/
- https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#algorithm-details
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

TOLERANCE = 0.1
"""Relative difference from the target that the HPA ignores."""
MOST_ADDED = 4
"""Number of pods that the HPA may always add in one step; it may also double their number."""
_QUERY = re.compile(
    r"(?P<clamped>clamp_min\()?max\((?P<metric>\w+)\{[^}]*\}\)(?(clamped) - (?P<less>[\d.]+), 0\))"
)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a ScaledObject of the chart asks for."""

    metric: str
    """Metric of which the largest value of all front ends counts."""
    less: float
    """Load that other workers take first."""
    threshold: float
    activation: float
    least: int
    most: int

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> "Rule":
        spec = manifest["spec"]
        (trigger,) = spec["triggers"]
        assert (trigger["type"], trigger["metricType"]) == ("prometheus", "AverageValue")
        metadata = trigger["metadata"]
        assert metadata["ignoreNullValues"] == "false"
        query = _QUERY.fullmatch(metadata["query"])
        assert query is not None, metadata["query"]
        return cls(
            metric=query["metric"],
            less=float(query["less"] or 0),
            threshold=float(metadata["threshold"]),
            activation=float(metadata["activationThreshold"]),
            least=spec["minReplicaCount"],
            most=spec["maxReplicaCount"],
        )

    def value(self, exported: Sequence[float]) -> float | None:
        """Return the query's result for the values of all front ends; None if there are none."""
        return max(max(exported) - self.less, 0) if exported else None


@dataclass(kw_only=True)
class Player:
    """State of KEDA and the HPA for one Deployment, with shortened times."""

    rule: Rule
    cooldown_s: float
    """Seconds without activity until the last pod ends."""
    stabilization_s: float
    """Seconds for which the HPA remembers a higher recommendation before it removes pods."""
    last_active_s: float = -math.inf
    recommendations: list[tuple[float, int]] = field(default_factory=list)
    """Times and results of the HPA's calculations."""

    def replicas(self, value: float | None, replicas: int, now_s: float) -> int:
        """Return how many pods there should be.

        Args:
            value: result of the query. Without one, nothing changes.
            replicas: how many there are.
            now_s: monotonic time in seconds.
        """
        if value is None:
            return replicas
        rule = self.rule
        is_active = value > rule.activation
        if is_active:
            self.last_active_s = now_s
        if replicas == 0:  # the HPA does nothing at zero
            self.recommendations.clear()
            return max(1, rule.least) if is_active else 0
        has_cooled = now_s - self.last_active_s > self.cooldown_s
        if not is_active and rule.least == 0 and has_cooled:
            return 0
        return self._stabilized(self._recommended(value, replicas), replicas, now_s)

    def _recommended(self, value: float, replicas: int) -> int:
        rule, milli = self.rule, round(value, 3)
        if abs(1 - milli / (rule.threshold * replicas)) <= TOLERANCE:
            return replicas
        wanted = math.ceil(milli / rule.threshold)
        limit = max(2 * replicas, replicas + MOST_ADDED)
        return max(1, rule.least, min(wanted, rule.most, limit))

    def _stabilized(self, recommended: int, replicas: int, now_s: float) -> int:
        kept = [(t, n) for t, n in self.recommendations if now_s - t <= self.stabilization_s]
        self.recommendations = [*kept, (now_s, recommended)]
        if recommended >= replicas:
            return recommended
        return min(replicas, max(n for _, n in self.recommendations))
