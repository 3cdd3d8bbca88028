//! What form the answer takes: Accept, `?pretty`, and what the server can write.

use commonage_schemas::names::{MANAGED_FIELDS, OMIT_HEADER};
use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, USER_AGENT};

use super::query::Query;
use crate::status::ApiError;
use crate::table::TableVersion;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Json,
    Yaml,
}

/// What an object is turned into before it is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Whole,
    Table(TableVersion),
    /// `PartialObjectMetadata`, of single objects only.
    Metadata(TableVersion),
    /// `PartialObjectMetadataList`, of lists only.
    MetadataList(TableVersion),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) encoding: Encoding,
    pub(super) shape: Shape,
    /// Indented JSON, for people.
    pub(super) pretty: bool,
    pub(super) gzip: bool,
    /// Whole objects and metadata come without `managedFields`.
    pub(super) lean: bool,
}

/// Everything that kube-apiserver names; what is not served is passed over in Accept.
const ACCEPTED: [&str; 3] =
    ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
/// Of these streams can be made.
const ACCEPTED_STREAMS: [&str; 2] =
    ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];

impl Format {
    /// # Errors
    /// 406 when no clause of Accept can be served.
    pub(super) fn negotiate(headers: &HeaderMap, query: &Query) -> Result<Format, ApiError> {
        Self::first(headers, query, |clause| Some((clause.encoding()?, clause.shape()?)))
            .ok_or_else(|| ApiError::not_acceptable(&ACCEPTED))
    }

    /// As [`Format::negotiate`], for a watch.
    pub(super) fn negotiate_stream(headers: &HeaderMap, query: &Query) -> Result<Format, ApiError> {
        let format = Self::negotiate(headers, query)?;
        match format.encoding {
            Encoding::Json => Ok(format),
            Encoding::Yaml => Err(ApiError::not_acceptable(&ACCEPTED_STREAMS)),
        }
    }

    /// For a Status, which is never transformed. `None`: nothing that is asked for will do.
    pub(super) fn of_status(headers: &HeaderMap, query: &Query) -> Option<Format> {
        Self::first(headers, query, |clause| {
            let plain = ["as", "g", "v"].iter().all(|name| clause.parameter(name).is_none());
            Some((clause.encoding().filter(|_| plain)?, Shape::Whole))
        })
    }

    fn first(
        headers: &HeaderMap,
        query: &Query,
        make: impl Fn(&Clause<'_>) -> Option<(Encoding, Shape)>,
    ) -> Option<Format> {
        let accept = accept(headers);
        let mut clauses = clauses(&accept);
        let mut pretty = wants_pretty(headers, query);
        // A request without Accept takes anything.
        let (encoding, shape) = if clauses.is_empty() {
            (Encoding::Json, Shape::Whole)
        } else {
            clauses.find_map_sorted(|clause| {
                let made = make(clause)?;
                pretty |= clause.parameter("pretty") == Some("1");
                Some(made)
            })?
        };
        let lean = headers.get(OMIT_HEADER).is_some_and(|what| what == MANAGED_FIELDS);
        Some(Format { encoding, shape, pretty, gzip: accepts_gzip(headers), lean })
    }

    /// JSON as a machine wants it.
    pub(super) fn plain() -> Format {
        Format {
            encoding: Encoding::Json,
            shape: Shape::Whole,
            pretty: false,
            gzip: false,
            lean: false,
        }
    }
}

pub(super) fn accept(headers: &HeaderMap) -> String {
    let values = headers.get_all(ACCEPT).iter();
    let values: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
    values.join(",")
}

/// The media types that Accept names, without their parameters.
pub(super) fn media_types(accept: &str) -> impl Iterator<Item = &str> {
    accept.split(',').map(|clause| clause.split(';').next().unwrap_or_default().trim())
}

/// One clause of Accept, its parameters split off.
pub(super) struct Clause<'a> {
    pub(super) media: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    quality_thousandths: u32,
}

impl Clause<'_> {
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(key, _)| *key == name)?;
        Some(found.1)
    }

    pub(super) fn is_json(&self) -> bool {
        matches!(self.media, "application/json" | "application/*" | "*/*")
    }

    fn encoding(&self) -> Option<Encoding> {
        match self.media {
            "application/yaml" => Some(Encoding::Yaml),
            _ if self.is_json() => Some(Encoding::Json),
            _ => None,
        }
    }

    fn shape(&self) -> Option<Shape> {
        if self.parameter("stream").is_some_and(|stream| !matches!(stream, "" | "watch")) {
            return None;
        }
        let of = |name| self.parameter(name);
        match (of("as"), of("g"), of("v")) {
            (None, None, None) => Some(Shape::Whole),
            (Some(target), Some("meta.k8s.io"), Some(version)) => {
                let version = match version {
                    "v1" => TableVersion::V1,
                    "v1beta1" => TableVersion::V1Beta1,
                    _ => return None,
                };
                match target {
                    "Table" => Some(Shape::Table(version)),
                    "PartialObjectMetadata" => Some(Shape::Metadata(version)),
                    "PartialObjectMetadataList" => Some(Shape::MetadataList(version)),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

pub(super) struct Clauses<'a>(Vec<Clause<'a>>);

impl<'a> Clauses<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first clause that something can be made of: best quality first, then named types before
    /// wildcards, then in order.
    pub(super) fn find_map_sorted<T>(
        &mut self,
        make: impl FnMut(&Clause<'a>) -> Option<T>,
    ) -> Option<T> {
        self.0.sort_by_key(|clause| {
            let (any, any_kind) = (clause.media == "*/*", clause.media.ends_with("/*"));
            (std::cmp::Reverse(clause.quality_thousandths), any, any_kind)
        });
        self.0.iter().filter(|clause| clause.quality_thousandths > 0).find_map(make)
    }
}

pub(super) fn clauses(accept: &str) -> Clauses<'_> {
    let clauses = accept.split(',').map(str::trim);
    let clauses = clauses.filter(|clause| !clause.is_empty());
    let clauses = clauses.map(|clause| {
        let mut parts = clause.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let parameters: Vec<(&str, &str)> = parts
            .filter_map(|part| part.split_once('='))
            .map(|(key, value)| (key.trim(), value.trim().trim_matches('"')))
            .collect();
        let quality = parameters.iter().find(|(key, _)| *key == "q");
        let quality = quality.and_then(|(_, value)| value.parse::<f32>().ok());
        Clause {
            media,
            parameters,
            quality_thousandths: (quality.unwrap_or(1.0).clamp(0.0, 1.0) * 1000.0) as u32,
        }
    });
    Clauses(clauses.collect())
}

fn wants_pretty(headers: &HeaderMap, query: &Query) -> bool {
    if let Some(pretty) = query.filled("pretty") {
        // What Go's strconv.ParseBool takes for true.
        return matches!(pretty, "1" | "t" | "T" | "true" | "TRUE" | "True");
    }
    let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok());
    let people = ["curl", "Wget", "Mozilla/5.0"];
    agent.is_some_and(|agent| people.iter().any(|program| agent.starts_with(program)))
}

pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(
        |coding| {
            let (name, quality) = coding.split_once(';').unwrap_or((coding, ""));
            name.trim() == "gzip" && quality.trim() != "q=0"
        },
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn negotiated(accept: &str) -> Result<(Encoding, Shape), u16> {
        let mut headers = HeaderMap::new();
        if !accept.is_empty() {
            headers.insert(ACCEPT, accept.parse().unwrap());
        }
        Format::negotiate(&headers, &Query::default())
            .map(|format| (format.encoding, format.shape))
            .map_err(|error| error.code)
    }

    #[test]
    fn clients_get_what_they_ask_for() {
        const KUBECTL: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,\
             application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let json = |shape| Ok((Encoding::Json, shape));
        assert_eq!(negotiated(""), json(Shape::Whole));
        assert_eq!(negotiated("*/*"), json(Shape::Whole));
        assert_eq!(negotiated(KUBECTL), json(Shape::Table(TableVersion::V1)));
        assert_eq!(
            negotiated("application/vnd.kubernetes.protobuf,application/json"),
            json(Shape::Whole)
        );
        assert_eq!(
            negotiated("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"),
            json(Shape::MetadataList(TableVersion::V1))
        );
        assert_eq!(
            negotiated("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1beta1"),
            json(Shape::Metadata(TableVersion::V1Beta1))
        );
        assert_eq!(
            negotiated("*/*, application/yaml"),
            Ok((Encoding::Yaml, Shape::Whole)),
            "named types come before wildcards"
        );
        assert_eq!(negotiated("application/json;g=meta.k8s.io"), Err(406));
        assert_eq!(negotiated("application/json, */*;q=0.8"), json(Shape::Whole));
        assert_eq!(negotiated("application/yaml"), Ok((Encoding::Yaml, Shape::Whole)));
        assert_eq!(
            negotiated("application/json;q=0.5,application/yaml"),
            Ok((Encoding::Yaml, Shape::Whole))
        );
        assert_eq!(
            negotiated("application/json;as=Chair;g=meta.k8s.io;v=v1,application/json"),
            json(Shape::Whole)
        );
        assert_eq!(negotiated("text/html"), Err(406));
        assert_eq!(negotiated("application/json;as=Table;g=meta.k8s.io;v=v9"), Err(406));
    }
}
