//! Caches in GitHub's: a small service on the loopback device that speaks its protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use rbuild::{
    BuildRequest, CacheExport, CacheImport, CacheLocation, CacheMode, GhaLocation, Output,
};
use serde_json::{Value, json};

use crate::build_remote_cache::{LAYERS, STAGES, STEPS, engine, traffic};
use crate::support::{Place, build, id, ran};
use crate::tests;
use crate::web::{Answer, Asked, Web, answer};

tests![
    github_keeps_a_cache,
    github_keeps_cache_mounts,
    a_layer_of_many_blocks_is_put_together,
    writers_to_github_lose_nothing,
];

/// Entries in the order in which they were finished, and what is on its way.
#[derive(Default)]
struct Entries {
    done: Vec<(String, Vec<u8>)>,
    /// Keys that somebody is writing: nobody else may.
    reserved: BTreeSet<String>,
    begun: BTreeMap<String, Vec<u8>>,
    blocks: BTreeMap<String, Vec<u8>>,
}

struct Service {
    web: Web,
    entries: Arc<Mutex<Entries>>,
}

impl Service {
    fn start() -> Self {
        let entries: Arc<Mutex<Entries>> = Arc::default();
        let kept = entries.clone();
        let web = Web::start(move |asked| kept.lock().unwrap().reply(asked));
        Self { web, entries }
    }

    fn location(&self, scope: &str) -> CacheLocation {
        let (url, token) = (self.web.url("/"), "token".to_owned());
        CacheLocation::Gha(GhaLocation { url, token, scope: scope.to_owned() })
    }

    fn exporting(&self, place: &Place, text: &str) -> BuildRequest {
        let export = CacheExport {
            mode: CacheMode::Max,
            must_succeed: true,
            ..CacheExport::new(self.location("main"))
        };
        BuildRequest { cache_to: vec![export], ..place.request(text) }
    }

    fn importing(&self, place: &Place, text: &str) -> BuildRequest {
        let cache_from = vec![CacheImport { location: self.location("main") }];
        BuildRequest { cache_from, ..place.request(text) }
    }
}

impl Entries {
    fn reply(&mut self, asked: &Asked) -> Answer {
        let host = asked.header("host").to_owned();
        let signed = |key: &str| format!("http://{host}/storage/{key}?sig=x");
        if let Some(rest) = asked.path.strip_prefix("/storage/") {
            let (key, query) = rest.split_once("?sig=x").unwrap();
            assert_eq!(asked.header("authorization"), "", "a token left its origin");
            return self.storage(asked, key, query);
        }
        if asked.header("authorization") != "Bearer token" {
            return answer(401, "{}");
        }
        let (service, method) = asked.path.rsplit_once('/').unwrap();
        assert_eq!(service, "/twirp/github.actions.results.api.v1.CacheService");
        let body: Value = serde_json::from_slice(&asked.body).unwrap();
        let key = body["key"].as_str().unwrap().to_owned();
        assert_eq!(body["version"].as_str().unwrap().len(), 64);
        let said = match method {
            "CreateCacheEntry" if !self.reserved.insert(key.clone()) => {
                return answer(409, r#"{"code":"already_exists"}"#);
            }
            "CreateCacheEntry" => json!({ "ok": true, "signed_upload_url": signed(&key) }),
            "FinalizeCacheEntryUpload" => {
                let bytes = self.begun.remove(&key).unwrap();
                assert_eq!(body["size_bytes"], bytes.len().to_string());
                self.done.push((key, bytes));
                json!({ "ok": true, "entry_id": "1" })
            }
            "GetCacheEntryDownloadURL" => {
                let newest = self.done.iter().rev().find(|(known, _)| known.starts_with(&key));
                match newest {
                    Some((key, _)) => json!({
                        "ok": true, "signed_download_url": signed(key), "matched_key": key,
                    }),
                    None => json!({ "ok": false }),
                }
            }
            _ => return answer(404, "{}"),
        };
        answer(200, said.to_string())
    }

    fn storage(&mut self, asked: &Asked, key: &str, query: &str) -> Answer {
        if asked.method == "GET" {
            let found = self.done.iter().find(|(known, _)| known == key);
            return found.map_or_else(|| answer(404, ""), |(_, bytes)| answer(200, bytes.clone()));
        }
        assert_eq!(asked.method, "PUT");
        if query.is_empty() {
            assert_eq!(asked.header("x-ms-blob-type"), "BlockBlob");
            self.begun.insert(key.to_owned(), asked.body.clone());
        } else if let Some(block) = query.strip_prefix("&comp=block&blockid=") {
            self.blocks.insert(format!("{key}/{}", block.replace("%3D", "=")), asked.body.clone());
        } else {
            assert_eq!(query, "&comp=blocklist");
            let list = String::from_utf8(asked.body.clone()).unwrap();
            let ids = list.split("<Latest>").skip(1);
            let ids = ids.map(|rest| rest.split_once("</Latest>").unwrap().0);
            let blocks = ids.flat_map(|id| self.blocks.remove(&format!("{key}/{id}")).unwrap());
            self.begun.insert(key.to_owned(), blocks.collect());
        }
        answer(201, "")
    }
}

fn github_keeps_a_cache() {
    let place = Place::new();
    let service = Service::start();
    let warm = engine(&place, "warm");
    let first = build(&warm, &service.exporting(&place, STAGES));
    assert_eq!(traffic(&first).sent_layers, STEPS - 1);
    assert_eq!(service.entries.lock().unwrap().done.len(), STEPS);
    // Nothing new: nothing is written.
    build(&warm, &service.exporting(&place, STAGES));
    assert_eq!(service.entries.lock().unwrap().done.len(), STEPS);
    service.web.asked();
    let cold = engine(&place, "cold");
    let second = build(&cold, &service.importing(&place, STAGES).output(Output::CacheOnly));
    assert_eq!((second.executed, id(&second)), (0, id(&first)));
    // Where the index is, and the index.
    assert_eq!(service.web.asked().len(), 2);
    let third = build(&cold, &service.importing(&place, STAGES).tag("kept"));
    assert_eq!((third.executed, traffic(&third).fetched_layers), (0, LAYERS));
    assert_eq!(place.sh(&cold, "kept", "cat /both"), "tools\nmore\nbelow\n");
    // Another scope is another cache.
    let cache_from = vec![CacheImport { location: service.location("mai") }];
    let other = BuildRequest { cache_from, ..place.request(STAGES) };
    assert_eq!(build(&engine(&place, "other"), &other).executed, STEPS);
}

fn github_keeps_cache_mounts() {
    crate::build_mount_cache::comes_back(&Service::start().location("main"));
}

fn a_layer_of_many_blocks_is_put_together() {
    let place = Place::new();
    let service = Service::start();
    let text = "RUN head -c 40000000 /dev/urandom > /big\n";
    let first = build(&engine(&place, "warm"), &service.exporting(&place, text));
    let cold = engine(&place, "cold");
    let second = build(&cold, &service.importing(&place, text).tag("kept"));
    assert_eq!((second.executed, id(&second)), (0, id(&first)));
}

fn writers_to_github_lose_nothing() {
    let place = Place::new();
    let service = Service::start();
    let builds: Vec<String> = (0..3).map(|n| format!("RUN echo {n} > /number\n")).collect();
    std::thread::scope(|scope| {
        for (number, text) in builds.iter().enumerate() {
            let (place, service) = (&place, &service);
            scope.spawn(move || {
                let engine = engine(place, &format!("store-{number}"));
                build(&engine, &service.exporting(place, text));
            });
        }
    });
    for (number, text) in builds.iter().enumerate() {
        let cold = engine(&place, &format!("cold-{number}"));
        let built = build(&cold, &service.importing(&place, text).output(Output::CacheOnly));
        assert_eq!(built.executed, 0, "{:?}", ran(&built));
    }
}
