//! A store that encrypts on the way in and decrypts on the way out.
//!
//! In the place of a value that cannot be decrypted comes out why: that is no object, and treated as
//! any other that can't be read.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use commonage_store::{
    Batch, Committed, Entry, GuardedWrite, Op, Page, RangeQuery, Revision, Store, StoreError,
};
use futures::StreamExt;
use futures::stream::BoxStream;

use super::Encryption;

/// What stands for a value begins with this, which begins no JSON.
pub(crate) const UNDECIPHERABLE: &str = "!it can't be decrypted: ";

pub(crate) struct EncryptedStore {
    inner: Arc<dyn Store>,
    encryption: Arc<Encryption>,
}

impl EncryptedStore {
    pub(crate) fn new(inner: Arc<dyn Store>, encryption: Arc<Encryption>) -> EncryptedStore {
        EncryptedStore { inner, encryption }
    }
}

fn opened(encryption: &Encryption, key: &Bytes, value: &mut Bytes) {
    match encryption.decrypt(key, value.clone()) {
        Ok(plain) => *value = plain,
        Err(why) => {
            let key = String::from_utf8_lossy(key).into_owned();
            tracing::error!(key, %why, "a value of the store can't be decrypted");
            *value = format!("{UNDECIPHERABLE}{why}").into();
        }
    }
}

#[async_trait]
impl Store for EncryptedStore {
    async fn commit(&self, mut write: GuardedWrite) -> Result<Committed, StoreError> {
        for op in &mut write.ops {
            if let Op::Put { key, value } | Op::PutFor { key, value, .. } = op {
                *value = self.encryption.encrypt(key, std::mem::take(value));
            }
        }
        self.inner.commit(write).await
    }

    fn landed(&self) -> Revision {
        self.inner.landed()
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.inner.revision().await
    }

    async fn get(&self, key: &[u8], at: Option<Revision>) -> Result<Option<Entry>, StoreError> {
        let mut entry = self.inner.get(key, at).await?;
        if let Some(entry) = &mut entry {
            opened(&self.encryption, &entry.key, &mut entry.value);
        }
        Ok(entry)
    }

    async fn range(&self, query: RangeQuery) -> Result<Page, StoreError> {
        let mut page = self.inner.range(query).await?;
        for entry in &mut page.entries {
            opened(&self.encryption, &entry.key, &mut entry.value);
        }
        Ok(page)
    }

    fn tail(&self, after: Revision) -> BoxStream<'static, Result<Batch, StoreError>> {
        let encryption = self.encryption.clone();
        let tail = self.inner.tail(after).map(move |batch| {
            let mut batch = batch?;
            for change in &mut batch.changes {
                if let Some(value) = &mut change.value {
                    opened(&encryption, &change.key, value);
                }
            }
            Ok(batch)
        });
        tail.boxed()
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.inner.compact(revision).await
    }
}
