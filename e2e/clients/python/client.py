"""What programs do with the official Python client: custom objects, watches, ConfigMaps, the dynamic
client, leader election. The cluster is that of $KUBECONFIG; the kind `Part` is there already.
"""

import threading

from kubernetes import client, config, dynamic, watch
from kubernetes.dynamic.exceptions import ConflictError, NotFoundError
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock

NAMESPACE = "python-client"
KIND = ("workshop.example", "v1", NAMESPACE, "parts")

config.load_kube_config()
core, custom = client.CoreV1Api(), client.CustomObjectsApi()


def part(name, **spec):
    return {
        "apiVersion": "workshop.example/v1",
        "kind": "Part",
        "metadata": {"name": name},
        "spec": {"color": "red", **spec},
    }


def refused(status, call, *arguments, **options):
    """The Status with which the server refuses a call."""
    try:
        call(*arguments, **options)
    except client.ApiException as error:
        assert error.status == status, error
        return error.body
    raise AssertionError(f"not refused: {arguments}")


def custom_objects():
    made = custom.create_namespaced_custom_object(*KIND, part("bolt"))
    assert made["spec"]["replicas"] == 1, made
    assert "AlreadyExists" in refused(
        409, custom.create_namespaced_custom_object, *KIND, part("bolt")
    )
    body = refused(422, custom.create_namespaced_custom_object, *KIND, part("nut", color="pink"))
    assert 'supported values: \\"red\\", \\"green\\", \\"blue\\"' in body, body

    # A dict is a merge patch; a list of operations is sent as one only when told so.
    changed = custom.patch_namespaced_custom_object(*KIND, "bolt", {"spec": {"note": "merged"}})
    assert changed["spec"]["note"] == "merged", changed
    operations = [{"op": "replace", "path": "/spec/note", "value": "by steps"}]
    changed = custom.patch_namespaced_custom_object(
        *KIND, "bolt", operations, _content_type="application/json-patch+json"
    )
    assert changed["spec"]["note"] == "by steps", changed

    status = {"status": {"replicas": 1, "conditions": [{"type": "Ready", "status": "True"}]}}
    changed = custom.patch_namespaced_custom_object_status(*KIND, "bolt", status)
    assert changed["status"]["replicas"] == 1, changed
    scaled = custom.patch_namespaced_custom_object_scale(*KIND, "bolt", {"spec": {"replicas": 4}})
    assert scaled["kind"] == "Scale" and scaled["status"]["replicas"] == 1, scaled

    stale = custom.get_namespaced_custom_object(*KIND, "bolt")
    custom.replace_namespaced_custom_object(*KIND, "bolt", {**stale, "spec": {"color": "blue"}})
    body = refused(409, custom.replace_namespaced_custom_object, *KIND, "bolt", stale)
    assert "the object has been modified" in body, body

    selected = custom.list_namespaced_custom_object(*KIND, field_selector="spec.color=blue")
    assert [item["metadata"]["name"] for item in selected["items"]] == ["bolt"], selected


def watching():
    listed = custom.list_namespaced_custom_object(*KIND)
    version = listed["metadata"]["resourceVersion"]
    custom.create_namespaced_custom_object(*KIND, part("washer"))
    custom.patch_namespaced_custom_object(*KIND, "washer", {"spec": {"note": "thin"}})
    custom.delete_namespaced_custom_object(*KIND, "washer")
    seen = []
    events = watch.Watch()
    for event in events.stream(
        custom.list_namespaced_custom_object, *KIND, resource_version=version, timeout_seconds=30
    ):
        seen.append((event["type"], event["object"]["metadata"]["name"]))
        if event["type"] == "DELETED":
            events.stop()
    assert seen == [("ADDED", "washer"), ("MODIFIED", "washer"), ("DELETED", "washer")], seen


def config_maps():
    # No apiVersion and no kind: the path says what it is.
    meta = client.V1ObjectMeta(name="settings", labels={"app": "python"})
    core.create_namespaced_config_map(
        NAMESPACE, client.V1ConfigMap(metadata=meta, data={"a": "1", "b": "2"})
    )
    # A strategic merge patch.
    changed = core.patch_namespaced_config_map(
        "settings", NAMESPACE, {"data": {"b": None, "c": "3"}}
    )
    assert changed.data == {"a": "1", "c": "3"}, changed
    found = core.list_namespaced_config_map(NAMESPACE, label_selector="app in (python)")
    assert [item.metadata.name for item in found.items] == ["settings"], found
    core.delete_collection_namespaced_config_map(NAMESPACE, label_selector="app=python")
    refused(404, core.read_namespaced_config_map, "settings", NAMESPACE)


def dynamic_client():
    by_discovery = dynamic.DynamicClient(client.ApiClient())
    parts = by_discovery.resources.get(api_version="workshop.example/v1", kind="Part")
    assert parts.namespaced and parts.short_names == ["pt"], parts
    applied = parts.server_side_apply(
        body=part("gear", holes=[{"name": "axle", "depth": 9}]),
        name="gear",
        namespace=NAMESPACE,
        field_manager="python",
    )
    assert applied.metadata.managedFields[0].manager == "python", applied
    try:
        parts.server_side_apply(
            body=part("gear", color="green"),
            name="gear",
            namespace=NAMESPACE,
            field_manager="another",
        )
    except ConflictError as conflict:
        assert 'conflict with \\"python\\": .spec.color' in conflict.body, conflict.body
    else:
        raise AssertionError("two managers own one field")
    parts.delete(name="gear", namespace=NAMESPACE)
    try:
        parts.get(name="gear", namespace=NAMESPACE)
    except NotFoundError as gone:
        assert 'parts.workshop.example \\"gear\\" not found' in gone.body, gone.body


def leader_election(lock):
    """Becomes the leader, and stays it for more than one renewal."""
    leads = threading.Event()
    election = electionconfig.Config(
        lock,
        lease_duration=3,
        renew_deadline=2,
        retry_period=1,
        onstarted_leading=leads.set,
        onstopped_leading=lambda: None,
    )
    threading.Thread(target=leaderelection.LeaderElection(election).run, daemon=True).start()
    assert leads.wait(30), "nobody was elected"


def renewed(lease, read):
    """Waits, on a watch, until a lock was written a second time."""
    first = read()
    events = watch.Watch()
    for event in events.stream(
        lease,
        NAMESPACE,
        field_selector=f"metadata.name={first.metadata.name}",
        resource_version=first.metadata.resource_version,
        timeout_seconds=30,
    ):
        assert event["type"] == "MODIFIED", event
        events.stop()
        return
    raise AssertionError("the lock was not renewed")


def main():
    assert client.VersionApi().get_code().major == "1"
    core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=NAMESPACE)))
    custom_objects()
    watching()
    config_maps()
    dynamic_client()

    leader_election(LeaseLock("lease", NAMESPACE, "me"))
    leases = client.CoordinationV1Api()
    renewed(leases.list_namespaced_lease, lambda: leases.read_namespaced_lease("lease", NAMESPACE))
    leader_election(ConfigMapLock("map", NAMESPACE, "me"))
    annotations = core.read_namespaced_config_map("map", NAMESPACE).metadata.annotations
    assert '"holderIdentity": "me"' in annotations["control-plane.alpha.kubernetes.io/leader"]
    renewed(
        core.list_namespaced_config_map, lambda: core.read_namespaced_config_map("map", NAMESPACE)
    )
    core.delete_namespace(NAMESPACE)
    print("ok", flush=True)


main()
