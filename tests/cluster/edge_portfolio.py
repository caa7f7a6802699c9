"""The portfolio of the edge site: small, but computing outweighs the way through Triton."""

from __future__ import annotations

from typing import Any

MODEL = "digits"
#: Samples in one request: computing must outweigh the way through the server.
BATCH = 64
IMAGES = {name: f"edgefolio.local/{name}:test" for name in ("operator", "edge", "triton", "pruner")}
SERVE_LABEL = "bed/serve"

ANNOTATIONS = (
    "slo.edgefolio.dev/latency-p95-ms",
    "slo.edgefolio.dev/min-accuracy-percent",
    "slo.edgefolio.dev/max-memory",
    "slo.edgefolio.dev/network-latency-ms",
    "edgefolio.dev/pin-variant",
    "edgefolio.dev/paused",
)

SPEC: dict[str, Any] = {
    "source": {"architecture": {"library": "edgefolio", "name": "resnet8", "options": {"in_channels": 1, "width": 64}}},
    "data": {
        "trainingURI": "builtin:digits",
        "validationPercent": 20,
        "testPercent": 20,
        # Few samples, and shares far apart: small variants lose accuracy on any processor, so that a choice is left.
        "calibrationSamples": 64,
    },
    "methods": {
        "sparseTraining": {
            "denseEpochs": 8,
            "levels": 0,
            "batchSize": 64,
            "augmentation": "None",
        },
        "oneShot": {"macsPercent": [70, 8, 5]},
    },
    "selection": {"accuracyEpsilonPoints": "0.05", "maxVariants": 4, "maxAccuracyLossPoints": "30.0"},
    "profiling": {"threads": 1, "batchSizes": [BATCH], "samples": 60, "rounds": 3},
    "repository": {"uri": "s3://portfolios/site", "secretRef": {"name": "s3"}, "readSecretRef": {"name": "s3-read"}},
    "serving": {
        "modelName": MODEL,
        "managed": {
            "imagePullPolicy": "Never",
            "nodeSelector": {SERVE_LABEL: "yes"},
            "resources": {"requests": {"cpu": "200m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
            "agentResources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "384Mi"}},
        },
    },
    "switching": {
        "downAfterSeconds": 5,
        "upAfterSeconds": 10,
        "minDwellSeconds": 5,
        "maxSwitchesPerHour": 600,
        "autonomyAfterSeconds": 15,
    },
    "rollout": {"maxConcurrentPercent": 50, "analysisSeconds": 10},
    "job": {
        "imagePullPolicy": "Never",
        "env": [{"name": "OMP_NUM_THREADS", "value": "1"}],
        "volumes": [{"claimName": "libraries", "mountPath": "/opt/libraries"}],
        "workDirectory": {"uri": "s3://portfolios/work"},
        "resources": {"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"memory": "3Gi"}},
    },
}
