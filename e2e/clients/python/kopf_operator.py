"""A framework as a kopf operator: it accepts each offer by launching a task, and does not let its
Framework go before it has written down that it went.

    kopf run --namespace NAMESPACE kopf_operator.py
"""

import kopf
from kubernetes import client, config, dynamic
from kubernetes.dynamic.exceptions import ConflictError

GROUP, VERSION = "commonage.dev", "v1"


@kopf.on.startup()
def start(settings, **_):
    config.load_kube_config()
    settings.persistence.finalizer = "workshop.example/operator"
    settings.posting.enabled = True


@kopf.on.create("frameworks", labels={"app": "kopf"})
def registered(body, name, **_):
    kopf.info(body, reason="Registered", message=f"framework {name} has an operator")


@kopf.on.delete("frameworks", labels={"app": "kopf"})
def deregistered(name, namespace, **_):
    meta = client.V1ObjectMeta(name=f"{name}-left")
    client.CoreV1Api().create_namespaced_config_map(namespace, client.V1ConfigMap(metadata=meta))


@kopf.on.event("offers")
def offered(event, name, namespace, spec, logger, **_):
    if event["type"] == "DELETED" or spec.get("framework") != "kopf":
        return
    if event["object"].get("status", {}).get("answer"):
        return
    task = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "Task",
        "metadata": {"name": "from-kopf"},
        "spec": {
            "framework": "kopf",
            "resources": {"cpu": "100m", "memory": "32Mi"},
            "container": {"command": ["true"]},
        },
    }
    acceptance = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "OfferAcceptance",
        "operations": [{"launch": {"tasks": [task]}}],
    }
    offers = dynamic.DynamicClient(client.ApiClient()).resources.get(
        api_version=f"{GROUP}/{VERSION}", kind="Offer"
    )
    try:
        offers.subresources["accept"].create(body=acceptance, name=name, namespace=namespace)
    except ConflictError as refused:
        # The task was launched on an earlier offer: one is enough.
        logger.info("offer %s: %s", name, refused.summary())
