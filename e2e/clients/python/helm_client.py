"""Helm's whole life of a release, with Helm itself (helm-python-sdk is Helm's own library).

Arguments: the chart's directory. The cluster is that of $KUBECONFIG.
"""

import os
import sys

import helm_python
from kubernetes import client, config

NAMESPACE = "helm-client"
GROUP, VERSION = "commonage.dev", "v1"

config.load_kube_config()
core, custom = client.CoreV1Api(), client.CustomObjectsApi()


def weight():
    return custom.get_cluster_custom_object(GROUP, VERSION, "queues", "shop")["spec"]["weight"]


def greeting():
    return core.read_namespaced_config_map("shop", NAMESPACE).data["greeting"]


def tasks():
    found = custom.list_namespaced_custom_object(GROUP, VERSION, NAMESPACE, "tasks")
    return {
        task["spec"]["container"]["command"][1]
        for task in found["items"]
        if "deletionTimestamp" not in task["metadata"]
    }


def secrets():
    found = core.list_namespaced_secret(NAMESPACE, label_selector="owner=helm,name=shop")
    return {secret.metadata.name for secret in found.items}


def main(chart):
    with helm_python.Config(
        kubeconfig_path=os.environ["KUBECONFIG"], namespace=NAMESPACE
    ) as helm:
        # Asked of the server, nothing is stored.
        planned = helm.install(chart, "shop", dry_run="server", create_namespace=True)
        assert "kind: Framework" in planned["manifest"], planned

        release = helm.install(chart, "shop", create_namespace=True, timeout=30)
        assert release["status"] == "deployed", release
        assert (weight(), greeting(), tasks()) == ("1", "hello", {"hello"})
        assert helm.list()[0]["name"] == "shop"

        release = helm.upgrade(chart, "shop", {"weight": "3", "greeting": "bye"}, timeout=30)
        assert release["status"] == "deployed", release
        assert (weight(), greeting(), tasks()) == ("3", "bye", {"bye"})
        assert helm.get_values("shop") == {"weight": "3", "greeting": "bye"}

        # What the server refuses, Helm says, and the release before it stays.
        try:
            helm.upgrade(chart, "shop", {"weight": "heavy"}, reuse_values=True, timeout=30)
        except helm_python.HelmError as refused:
            assert "weight" in str(refused), refused
        else:
            raise AssertionError("a bad weight was taken")
        assert (weight(), greeting()) == ("3", "bye")

        helm.rollback("shop", version=1, timeout=30)
        assert (weight(), greeting(), tasks()) == ("1", "hello", {"hello"})
        history = [(entry["revision"], entry["status"]) for entry in helm.history("shop")]
        assert history == [
            (1, "superseded"),
            (2, "superseded"),
            (3, "failed"),
            (4, "deployed"),
        ], history
        assert len(secrets()) == 4, secrets()

        helm.uninstall("shop", timeout=30)
        assert helm.list() == []
        assert secrets() == set()
        assert tasks() == set()
        try:
            weight()
        except client.ApiException as gone:
            assert gone.status == 404, gone
        else:
            raise AssertionError("the queue is still there")
    core.delete_namespace(NAMESPACE)
    print("ok")


main(sys.argv[1])
