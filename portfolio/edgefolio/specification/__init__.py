"""Models of the ``ModelPortfolio`` resource, the same on the command line and in a cluster.

One source of truth: these pydantic models read the file for ``edgefolio make -f`` and the custom resource definition is
generated from them. Values are frozen; names are camelCase in the resource and snake_case in Python; there are no
floats in the resource (decimals are strings), every list and string is bounded.
Nothing here reads a file (:mod:`edgefolio.specification.loading` does): the pure decision imports from this package.
"""

from edgefolio.specification.making import (
    Architecture,
    DataSpecification,
    Methods,
    Normalization,
    OneShot,
    Quantization,
    Selection,
    Source,
    SparseTraining,
)
from edgefolio.specification.objectives import ObjectiveOverride, ObjectivesSpecification
from edgefolio.specification.profiling import Profiling
from edgefolio.specification.resource import (
    API_VERSION,
    ModelPortfolio,
    ObjectMeta,
    PortfolioSpecification,
    RepositorySpecification,
)
from edgefolio.specification.serving import Serving, Switching

__all__ = [
    "API_VERSION",
    "Architecture",
    "DataSpecification",
    "Methods",
    "ModelPortfolio",
    "Normalization",
    "ObjectMeta",
    "ObjectiveOverride",
    "ObjectivesSpecification",
    "OneShot",
    "PortfolioSpecification",
    "Profiling",
    "Quantization",
    "RepositorySpecification",
    "Selection",
    "Serving",
    "Source",
    "SparseTraining",
    "Switching",
]
