//! Create.

use std::sync::Arc;

use bytes::Bytes;
use commonage_store::{Compare, GuardedWrite, Op, Version};
use jiff::Timestamp;
use serde_json::Value;

use super::commit::{CommitError, clean, judge, name_of, take_version};
use super::{Engine, WriteOptions, Written, managed, scale};
use crate::meta;
use crate::object::{encode_as, encode_with};
use crate::resource::ResourceDef;
use crate::status::ApiError;
use crate::strategy::{Companion, Context};

/// Names tried for `generateName` before the client is told to try again; kube-apiserver's number.
const GENERATED_NAMES_MAX: usize = 8;

/// An object that is ready to be stored.
pub(crate) struct Prepared {
    pub(crate) def: Arc<ResourceDef>,
    pub(crate) namespace: String,
    pub(crate) object: Value,
    /// `metadata.managedFields` as text, where the object is without them.
    entries: Option<String>,
    pub(crate) warnings: Vec<String>,
}

impl Prepared {
    pub(crate) fn name(&self) -> &str {
        name_of(&self.object)
    }

    pub(crate) fn key(&self) -> Bytes {
        self.def.key(&self.namespace, self.name()).into()
    }

    pub(crate) fn path(&self) -> String {
        [&self.namespace, "/", self.name()].concat()
    }
}

impl Engine {
    pub(super) async fn create_now(
        self: Arc<Self>,
        def: Arc<ResourceDef>,
        namespace: String,
        mut body: Value,
        options: WriteOptions,
    ) -> Result<Written, ApiError> {
        if def.terminating {
            return Err(ApiError::definition_terminating(&def, "create"));
        }
        let warnings = self.accept(&def, &mut body, &options)?;
        let created = self.create_accepted(&def, &namespace, body, &options, &warnings).await;
        created.map_err(|error| error.with_warnings(&warnings))
    }

    async fn create_accepted(
        self: &Arc<Self>,
        def: &Arc<ResourceDef>,
        namespace: &str,
        mut body: Value,
        options: &WriteOptions,
        warnings: &[String],
    ) -> Result<Written, ApiError> {
        meta::accept_create(def, def.is_namespaced().then_some(namespace), &mut body)?;
        let given = take_version(&mut body).and_then(|version| version.parse::<u64>().ok());
        self.check_namespace(def, namespace, name_of(&body)).await?;
        let has_base = !body["metadata"]["generateName"].as_str().unwrap_or_default().is_empty();
        let attempts = match has_base && name_of(&body).is_empty() {
            true => GENERATED_NAMES_MAX,
            false => 1,
        };
        let strategy = self.strategy_for(def, &body).clone();
        let mut clash = String::new();
        for left in (0..attempts).rev() {
            let mut object = if left == 0 { body.take() } else { body.clone() };
            meta::prepare_create(def, &mut object, Timestamp::now())?;
            strategy.default(&mut object);
            let otherwise = strategy.is_created_otherwise(&object);
            let mut entries = None;
            if !otherwise && managed::may_be_beside(def, &object, options) {
                entries = managed::record_new_beside(def, &object, options);
            } else {
                managed::record(def, None, None, &mut object, options);
            }
            if otherwise
                && let Some(answer) =
                    strategy.create_otherwise(self, def, namespace, &object, options).await
            {
                return answer;
            }
            let mut all = warnings.to_vec();
            all.extend(meta::warnings(def, None, &object));
            let prepared = self.prepare_rules(def, namespace, object, all, options)?;
            let prepared = Prepared { entries, ..prepared };
            // Not even kube-apiserver looks at this before its storage does.
            if given.is_some_and(|version| version > 0) && !options.dry_run {
                let why = "resourceVersion should not be set on objects to be created";
                return Err(ApiError::unforeseen(why));
            }
            match self.store_new(prepared, options).await {
                Ok(written) => return Ok(written),
                Err(StoreNewError::Exists(name)) => clash = name,
                Err(StoreNewError::Failed(error)) => return Err(error),
            }
        }
        let mut error = match has_base {
            true => ApiError::generate_name_conflict(def, &clash),
            false => ApiError::already_exists(def, &clash),
        };
        let existing = self.resource(def)?.get(&format!("{namespace}/{clash}"));
        if existing.is_some_and(|object| object.deleting) {
            error.message = format!("object is being deleted: {}", error.message);
        }
        Err(error)
    }

    /// Reads a body as an object of the kind: its shape, pruning, defaults. Returns warnings.
    pub(super) fn accept(
        &self,
        def: &ResourceDef,
        body: &mut Value,
        options: &WriteOptions,
    ) -> Result<Vec<String>, ApiError> {
        meta::check_shape(def, body).map_err(|why| ApiError::undecodable(def, body, &why))?;
        let findings = match meta::check_type(def, body).is_ok() {
            true => clean(def, body, options),
            false => options.findings.clone(),
        };
        let mut warnings = judge(findings, options, |why| ApiError::undecodable(def, body, &why))?;
        meta::check_api_version(def, body)?;
        warnings.extend(meta::dedup_owners(body, ""));
        Ok(warnings)
    }

    /// The namespace must exist and not be going away.
    pub(crate) async fn check_namespace(
        &self,
        def: &ResourceDef,
        namespace: &str,
        name: &str,
    ) -> Result<(), ApiError> {
        let Some(namespaces) = self.namespaces.as_ref().filter(|_| def.is_namespaced()) else {
            return Ok(());
        };
        let path = format!("/{namespace}");
        let cached = self.resource(namespaces)?.get(&path);
        let found = match cached {
            Some(found) => Some(found),
            None => {
                self.fresh(None).await?;
                self.resource(namespaces)?.get(&path)
            }
        };
        match found {
            None => Err(ApiError::not_found(namespaces, namespace)),
            Some(found) if found.deleting => {
                Err(ApiError::namespace_terminating(def, name, namespace))
            }
            Some(_) => Ok(()),
        }
    }

    /// Metadata, pruning, defaults: what is the same for every kind.
    pub(crate) fn prepare_metadata(
        &self,
        def: &Arc<ResourceDef>,
        namespace: &str,
        mut object: Value,
        options: &WriteOptions,
    ) -> Result<(Value, Vec<String>), ApiError> {
        let mut warnings = self.accept(def, &mut object, options)?;
        meta::accept_create(def, def.is_namespaced().then_some(namespace), &mut object)?;
        meta::prepare_create(def, &mut object, Timestamp::now())?;
        self.strategy_for(def, &object).default(&mut object);
        managed::record(def, None, None, &mut object, options);
        warnings.extend(meta::warnings(def, None, &object));
        Ok((object, warnings))
    }

    /// The kind's own rules, and validation.
    fn prepare_rules(
        &self,
        def: &Arc<ResourceDef>,
        namespace: &str,
        mut object: Value,
        warnings: Vec<String>,
        options: &WriteOptions,
    ) -> Result<Prepared, ApiError> {
        let context = self.context(def, namespace, &options.user);
        self.strategy_for(def, &object).prepare_create(context, &mut object)?;
        self.validated(def, namespace, object, warnings)
    }

    /// Everything that is wrong with a new object, or the object.
    pub(crate) fn validated(
        &self,
        def: &Arc<ResourceDef>,
        namespace: &str,
        object: Value,
        warnings: Vec<String>,
    ) -> Result<Prepared, ApiError> {
        meta::check_type(def, &object)?;
        let mut causes = meta::validate(def, &object);
        causes.extend(def.schema.validate(&object));
        causes.extend(scale::causes(def, &object, false));
        // The kind's own checks read typed objects: they come once the shape is right.
        if causes.is_empty() {
            causes.extend(self.strategy(def).validate(&object, None));
        }
        if !causes.is_empty() {
            return Err(ApiError::invalid(def, name_of(&object), causes));
        }
        let (def, namespace) = (def.clone(), namespace.to_owned());
        Ok(Prepared { def, namespace, object, entries: None, warnings })
    }

    pub(crate) fn context<'a>(
        &'a self,
        def: &'a Arc<ResourceDef>,
        namespace: &'a str,
        user: &'a crate::auth::UserInfo,
    ) -> Context<'a> {
        Context { engine: self, def, namespace, user, now: Timestamp::now() }
    }

    async fn store_new(
        &self,
        prepared: Prepared,
        options: &WriteOptions,
    ) -> Result<Written, StoreNewError> {
        let (def, path) = (prepared.def.clone(), prepared.path());
        let value = match &prepared.entries {
            Some(entries) => encode_with(&prepared.object, Some(entries)),
            None => encode_as(&prepared.def, &prepared.object),
        };
        let warnings = prepared.warnings.clone();
        let done = |version: Version| {
            let object = self.written(&def, &path, &value, version)?;
            Ok(Written { object, warnings: warnings.clone(), created: true })
        };
        let resource = self.resource(&def)?;
        if options.dry_run {
            if resource.get(&path).is_some() {
                return Err(StoreNewError::Exists(prepared.name().to_owned()));
            }
            return done(Version(0));
        }
        let mut write = GuardedWrite {
            compares: vec![Compare::Absent { key: prepared.key() }],
            ops: vec![self.put(&def, prepared.key(), value.clone())],
        };
        write.compares.extend(self.namespace_guard(&def, &prepared.namespace));
        let context = self.context(&def, &prepared.namespace, &options.user);
        for companion in self.strategy(&def).companions(context, &prepared.object) {
            write.ops.push(self.companion(companion, options)?);
        }
        match self.commit(write).await {
            Ok(committed) => done(committed.versions[0]),
            Err(CommitError::Conflict(0)) => Err(StoreNewError::Exists(prepared.name().to_owned())),
            Err(CommitError::Conflict(_)) => {
                Err(ApiError::not_found_in("", "namespaces", &prepared.namespace).into())
            }
            Err(CommitError::Failed(error)) => Err(error.into()),
        }
    }

    fn companion(&self, companion: Companion, options: &WriteOptions) -> Result<Op, ApiError> {
        let Companion { def, namespace, body } = companion;
        let (object, warnings) = self.prepare_metadata(&def, &namespace, body, options)?;
        let prepared = self.prepare_rules(&def, &namespace, object, warnings, options)?;
        let value = encode_as(&prepared.def, &prepared.object);
        Ok(self.put(&prepared.def, prepared.key(), value))
    }
}

enum StoreNewError {
    /// The name is taken.
    Exists(String),
    Failed(ApiError),
}

impl From<ApiError> for StoreNewError {
    fn from(error: ApiError) -> Self {
        StoreNewError::Failed(error)
    }
}
