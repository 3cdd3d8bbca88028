// What programs do with @kubernetes/client-node: objects of any kind, server-side apply, watch, an
// informer. The cluster is that of $KUBECONFIG; the kind `Part` is there already.

import assert from 'node:assert/strict';
import { once, EventEmitter } from 'node:events';
import {
  ApiException,
  CoordinationV1Api,
  CoreV1Api,
  CustomObjectsApi,
  KubeConfig,
  KubernetesObjectApi,
  PatchStrategy,
  VersionApi,
  Watch,
  makeInformer,
} from '@kubernetes/client-node';

const namespace = 'node-client';
const kind = { group: 'workshop.example', version: 'v1', namespace, plural: 'parts' };
const path = `/apis/workshop.example/v1/namespaces/${namespace}/parts`;

const config = new KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(CoreV1Api);
const custom = config.makeApiClient(CustomObjectsApi);
const objects = KubernetesObjectApi.makeApiClient(config);

const part = (name, spec = {}) => ({
  apiVersion: 'workshop.example/v1',
  kind: 'Part',
  metadata: { name, namespace },
  spec: { color: 'red', ...spec },
});

/** The Status with which the server refuses a call. */
async function refused(code, call) {
  const error = await call.then(
    () => assert.fail('not refused'),
    (error) => error,
  );
  assert.ok(error instanceof ApiException, error);
  assert.equal(error.code, code);
  return typeof error.body === 'string' ? JSON.parse(error.body) : error.body;
}

async function customObjects() {
  const made = await custom.createNamespacedCustomObject({ ...kind, body: part('bolt') });
  assert.equal(made.spec.replicas, 1);
  const invalid = await refused(
    422,
    custom.createNamespacedCustomObject({ ...kind, body: part('nut', { color: 'pink' }) }),
  );
  assert.equal(invalid.details.causes[0].field, 'spec.color');

  // A JSON patch is what it sends unless told otherwise.
  const operations = [{ op: 'add', path: '/spec/note', value: 'by steps' }];
  const patched = await custom.patchNamespacedCustomObject({
    ...kind,
    name: 'bolt',
    body: operations,
  });
  assert.equal(patched.spec.note, 'by steps');
  patched.spec.color = 'blue';
  await custom.replaceNamespacedCustomObject({ ...kind, name: 'bolt', body: patched });
  const stale = await refused(
    409,
    custom.replaceNamespacedCustomObject({ ...kind, name: 'bolt', body: patched }),
  );
  assert.equal(stale.reason, 'Conflict');
  const found = await custom.listNamespacedCustomObject({
    ...kind,
    fieldSelector: 'spec.color=blue',
  });
  assert.deepEqual(
    found.items.map((item) => item.metadata.name),
    ['bolt'],
  );
  const deleted = await custom.deleteNamespacedCustomObject({ ...kind, name: 'bolt' });
  assert.equal(deleted.status, 'Success');
}

async function anyObjects() {
  const apply = (body, manager, force) =>
    objects.patch(body, undefined, undefined, manager, force, PatchStrategy.ServerSideApply);
  const applied = await apply(part('gear'), 'node', false);
  assert.equal(applied.metadata.managedFields[0].operation, 'Apply');
  const conflict = await refused(409, apply(part('gear', { color: 'green' }), 'other', false));
  assert.match(conflict.message, /conflict with "node".*\.spec\.color/);
  const taken = await apply(part('gear', { color: 'green' }), 'other', true);
  assert.equal(taken.spec.color, 'green');
  await objects.delete(part('gear'));
  await refused(404, objects.read(part('gear')));
}

async function watching() {
  const { metadata } = await custom.listNamespacedCustomObject(kind);
  const seen = [];
  const events = new EventEmitter();
  const stop = await new Watch(config).watch(
    path,
    { resourceVersion: metadata.resourceVersion },
    (type, object) => {
      seen.push(`${type} ${object.metadata.name}`);
      events.emit(type);
    },
    () => {},
  );
  const ended = once(events, 'DELETED');
  await custom.createNamespacedCustomObject({ ...kind, body: part('washer') });
  await custom.deleteNamespacedCustomObject({ ...kind, name: 'washer' });
  await ended;
  stop.abort();
  assert.deepEqual(seen, ['ADDED washer', 'DELETED washer']);
}

async function informing() {
  await custom.createNamespacedCustomObject({ ...kind, body: part('early') });
  const informer = makeInformer(config, path, () => custom.listNamespacedCustomObject(kind));
  const events = new EventEmitter();
  for (const type of ['add', 'update', 'delete', 'error']) {
    informer.on(type, (object) => events.emit(`${type} ${object?.metadata?.name}`));
  }
  const early = once(events, 'add early');
  await informer.start();
  await early;
  const late = once(events, 'add late');
  await custom.createNamespacedCustomObject({ ...kind, body: part('late') });
  await late;
  const updated = once(events, 'update late');
  await custom.patchNamespacedCustomObject({
    ...kind,
    name: 'late',
    body: [{ op: 'replace', path: '/spec/color', value: 'green' }],
  });
  await updated;
  assert.equal(informer.get('late', namespace).spec.color, 'green');
  const gone = once(events, 'delete early');
  await custom.deleteNamespacedCustomObject({ ...kind, name: 'early' });
  await gone;
  assert.deepEqual(
    informer.list(namespace).map((item) => item.metadata.name),
    ['late'],
  );
  await informer.stop();
}

async function builtIns() {
  await core.createNamespacedConfigMap({
    namespace,
    body: { metadata: { name: 'settings' }, data: { a: '1' } },
  });
  const maps = await core.listNamespacedConfigMap({ namespace });
  assert.ok(maps.items.some((map) => map.metadata.name === 'settings'));
  const leases = config.makeApiClient(CoordinationV1Api);
  const lease = await leases.createNamespacedLease({
    namespace,
    body: { metadata: { name: 'lock' }, spec: { holderIdentity: 'me', leaseDurationSeconds: 5 } },
  });
  lease.spec.leaseTransitions = 1;
  const renewed = await leases.replaceNamespacedLease({ namespace, name: 'lock', body: lease });
  assert.equal(renewed.spec.leaseTransitions, 1);
}

const version = await config.makeApiClient(VersionApi).getCode();
assert.equal(version.major, '1');
await core.createNamespace({ body: { metadata: { name: namespace } } });
await customObjects();
await anyObjects();
await watching();
await informing();
await builtIns();
await core.deleteNamespace({ name: namespace });
console.log('ok');
