//! The document: SPDX 2.3 as JSON (<https://spdx.github.io/spdx-spec/v2.3/>).
//!
//! It follows from its subject and from what was found, bit for bit: everything is sorted, and the
//! namespace, which has to differ for documents that differ, is made of the content.

use std::collections::{BTreeMap, BTreeSet};

use rbuild_types::Digest;
use serde::Serialize;

use crate::distro::Distro;
use crate::found::Found;
use crate::licence::{NO_ASSERTION, declared, id};
use crate::package::{Kind, Package, Purl};

/// What a document is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The name of the image.
    pub name: &'a str,
    /// When it was made, in RFC 3339.
    pub created: &'a str,
    /// Which program says so, and its version: `name-1.0`.
    pub tool: &'a str,
}

/// The SPDX id of the document.
const DOCUMENT: &str = "SPDXRef-DOCUMENT";
/// The SPDX id of the image.
const IMAGE: &str = "SPDXRef-Image";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    spdx_version: &'static str,
    data_license: &'static str,
    #[serde(rename = "SPDXID")]
    id: &'static str,
    name: &'a str,
    document_namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    creation_info: CreationInfo,
    packages: Vec<Listed>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    has_extracted_licensing_infos: Vec<Extracted>,
    relationships: Vec<Relationship>,
}

#[derive(Serialize)]
struct CreationInfo {
    created: String,
    creators: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    name: String,
    #[serde(rename = "SPDXID")]
    id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    version_info: String,
    supplier: String,
    download_location: &'static str,
    files_analyzed: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    source_info: String,
    license_concluded: &'static str,
    license_declared: String,
    copyright_text: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    primary_package_purpose: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    external_refs: Vec<ExternalRef>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExternalRef {
    reference_category: &'static str,
    reference_type: &'static str,
    reference_locator: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Extracted {
    license_id: String,
    extracted_text: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Relationship {
    spdx_element_id: &'static str,
    relationship_type: &'static str,
    related_spdx_element: String,
}

/// The document that lists what was found.
pub fn document(found: &Found, subject: &Subject<'_>) -> Vec<u8> {
    let mut others = BTreeMap::new();
    let mut packages = vec![unversioned(subject.name, IMAGE, "CONTAINER")];
    packages.extend(found.distro.as_ref().map(operating_system));
    let listed = found.packages.iter();
    packages.extend(listed.map(|(package, places)| {
        let distro = found.distro.as_ref();
        list(package, places, distro, &mut others)
    }));
    let relation = |from, kind, to: &str| Relationship {
        spdx_element_id: from,
        relationship_type: kind,
        related_spdx_element: to.to_owned(),
    };
    let mut relationships = vec![relation(DOCUMENT, "DESCRIBES", IMAGE)];
    let contained = packages.iter().skip(1);
    relationships.extend(contained.map(|package| relation(IMAGE, "CONTAINS", &package.id)));
    let extracted = others.into_iter();
    let extracted =
        extracted.map(|(license_id, extracted_text)| Extracted { license_id, extracted_text });
    let notes: Vec<_> = found.notes.iter().map(String::as_str).collect();
    let comment = format!("this list may be incomplete: {}", notes.join("; "));
    let mut document = Document {
        spdx_version: "SPDX-2.3",
        data_license: "CC0-1.0",
        id: DOCUMENT,
        name: subject.name,
        document_namespace: String::new(),
        comment: (!notes.is_empty()).then_some(comment),
        creation_info: CreationInfo {
            created: seconds(subject.created),
            creators: vec![format!("Tool: {}", subject.tool)],
        },
        packages,
        has_extracted_licensing_infos: extracted.collect(),
        relationships,
    };
    let content = Digest::of(json(&document));
    // What the specification proposes for those who have no site of their own for documents.
    document.document_namespace = format!("https://spdx.org/spdxdocs/rbuild-{}", content.hex());
    json(&document)
}

fn json(document: &Document<'_>) -> Vec<u8> {
    // Neither maps with other keys than text nor values that can fail are in it.
    serde_json::to_vec(document).unwrap_or_default()
}

/// RFC 3339 without parts of a second, which SPDX does not know.
fn seconds(time: &str) -> String {
    match time.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => time.to_owned(),
    }
}

fn unversioned(name: &str, id: &str, purpose: &'static str) -> Listed {
    Listed {
        name: name.to_owned(),
        id: id.to_owned(),
        version_info: String::new(),
        supplier: NO_ASSERTION.to_owned(),
        download_location: NO_ASSERTION,
        files_analyzed: false,
        source_info: String::new(),
        license_concluded: NO_ASSERTION,
        license_declared: NO_ASSERTION.to_owned(),
        copyright_text: NO_ASSERTION,
        primary_package_purpose: Some(purpose),
        external_refs: Vec::new(),
    }
}

fn operating_system(distro: &Distro) -> Listed {
    let id = format!("SPDXRef-OperatingSystem-{}", id(&distro.id));
    let version_info = distro.version.clone();
    Listed { version_info, ..unversioned(&distro.id, &id, "OPERATING-SYSTEM") }
}

fn list(
    package: &Package,
    places: &BTreeSet<String>,
    distro: Option<&Distro>,
    others: &mut BTreeMap<String, String>,
) -> Listed {
    let purl = purl(package, distro).to_string();
    let license_declared = declared(&package.licences, others);
    let supplier = supplier(package);
    let unique = Digest::of(format!("{purl}\n{license_declared}\n{supplier}").as_bytes());
    let kind = package.kind.purl_type();
    let id = format!("SPDXRef-Package-{kind}-{}-{}", id(&package.name), &unique.hex()[..16]);
    let places: Vec<_> = places.iter().map(String::as_str).collect();
    Listed {
        name: package.name.clone(),
        id,
        version_info: package.version.clone(),
        supplier,
        download_location: NO_ASSERTION,
        files_analyzed: false,
        source_info: format!("found in {}", places.join(", ")),
        license_concluded: NO_ASSERTION,
        license_declared,
        copyright_text: NO_ASSERTION,
        primary_package_purpose: None,
        external_refs: vec![ExternalRef {
            reference_category: "PACKAGE-MANAGER",
            reference_type: "purl",
            reference_locator: purl,
        }],
    }
}

/// `Name <address>` as SPDX writes it.
fn supplier(package: &Package) -> String {
    let text = package.supplier.trim();
    if text.is_empty() {
        return NO_ASSERTION.to_owned();
    }
    let kind = if package.kind.is_of_distro() { "Organization" } else { "Person" };
    match text.split_once('<') {
        Some((name, address)) => {
            format!("{kind}: {} ({})", name.trim(), address.trim_end_matches('>'))
        }
        None => format!("{kind}: {text}"),
    }
}

fn purl(package: &Package, distro: Option<&Distro>) -> Purl {
    let (namespace, name) = match package.kind {
        Kind::Apk | Kind::Deb | Kind::Rpm => {
            let owner = distro.map_or(default_owner(package.kind), |distro| &distro.id);
            (owner.to_owned(), package.name.as_str())
        }
        _ => match package.name.rsplit_once('/') {
            Some((namespace, name)) => (namespace.to_owned(), name),
            None => (String::new(), package.name.as_str()),
        },
    };
    let mut purl = Purl {
        kind: package.kind.purl_type().to_owned(),
        namespace,
        name: name.to_owned(),
        version: package.version.clone(),
        qualifiers: BTreeMap::new(),
    };
    if package.kind.is_of_distro() {
        purl.qualifiers.insert("arch", package.architecture.clone());
        purl.qualifiers.insert("distro", distro.map(Distro::qualifier).unwrap_or_default());
        if package.upstream != package.name {
            purl.qualifiers.insert("upstream", package.upstream.clone());
        }
    }
    if package.kind == Kind::Rpm
        && let Some((epoch, version)) = package.version.split_once(':')
    {
        purl.version = version.to_owned();
        purl.qualifiers.insert("epoch", epoch.to_owned());
    }
    purl
}

/// Whose packages they are when the image does not say.
fn default_owner(kind: Kind) -> &'static str {
    match kind {
        Kind::Apk => "alpine",
        Kind::Deb => "debian",
        _ => "",
    }
}
