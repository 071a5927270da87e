"""Snakemake's Kubernetes executor for a checkout on a volume that all pods share.

The executor of snakemake-executor-plugin-kubernetes takes it for given that pods share no files: every input and output
then travels through a storage, while runs in training, checkpoints and the store, which are no outputs, would stay in
the pod and be lost with it. Here jobs work in the checkout itself, which a persistent volume brings into every pod, as
they do on a cluster with a shared disk.

Snakemake imports this package whenever it starts, whether the executor is installed or not.
"""

from importlib.util import find_spec

if find_spec("snakemake_executor_plugin_kubernetes"):
    from snakemake_executor_plugin_kubernetes_shared.executor import Executor, ExecutorSettings, common_settings
else:
    from snakemake_executor_plugin_kubernetes_shared.missing import Executor, ExecutorSettings, common_settings

__all__ = ["Executor", "ExecutorSettings", "common_settings"]
