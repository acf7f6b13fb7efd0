//! The page of `rbuild layers --html`: one file that a browser shows without any network.
//!
//! `page.html` has the looks and the script; here it is filled in. What comes from an image is
//! hostile text: in the page it is escaped, and in the data of the script nothing is left that
//! could end the script. The page itself forbids the browser to fetch anything.
//!
//! However many files an image has, the page stays small: the largest are in it by their names,
//! the others as one sum for each directory near the root, layer and fate, and what is too much
//! even then as one for each layer and fate.

mod escape;
mod files;

use rbuild::{Fate, ImageLayers, PathVersion};
use serde_json::{Value, json};

use crate::{human, output};
use escape::{in_page, in_script};

const TEMPLATE: &str = include_str!("page.html");
/// Bytes that all instructions together may have in the page, twice.
const INSTRUCTIONS: usize = 200 << 10;
/// What one instruction gets in any case.
const SHORTEST: usize = 120;
/// Files in the list of what is wasted.
const WASTED: usize = 200;
/// Longest path in that list.
const PATH: usize = 500;

/// The page; `name` is what the user calls the image.
pub fn page(image: &ImageLayers, name: &str) -> String {
    let mut page = String::with_capacity(TEMPLATE.len() + (1 << 20));
    let mut rest = TEMPLATE;
    // What is filled in is not looked at again: it may have the form of a placeholder.
    while let Some((before, after)) = rest.split_once("{{") {
        let (key, after) = after.split_once("}}").unwrap_or((after, ""));
        page.push_str(before);
        page.push_str(&part(key, image, name));
        rest = after;
    }
    page.push_str(rest);
    page
}

fn part(key: &str, image: &ImageLayers, name: &str) -> String {
    match key {
        "name" => in_page(name),
        "id" => in_page(&image.id.to_string()),
        "total" => human::bytes(image.total()),
        "wasted" => human::bytes(image.wasted()),
        "efficiency" => format!("{:.1}%", image.efficiency() * 100.0),
        "layer_count" => image.layers.len().to_string(),
        "layers" => layers(image),
        "wasted_files" => wasted_files(image),
        "data" => in_script(&data(image).to_string()),
        // A test looks for keys that nothing stands for.
        other => format!("{{{{{other}}}}}"),
    }
}

/// The instruction of a layer, no longer than there is room for.
fn instruction(image: &ImageLayers, text: &str) -> String {
    let room = (INSTRUCTIONS / image.layers.len().max(1)).max(SHORTEST);
    short(&output::instruction(text, None), room)
}

fn short(text: &str, room: usize) -> String {
    match text.char_indices().nth(room) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

/// Rows of the table of layers.
fn layers(image: &ImageLayers) -> String {
    let largest = image.layers.iter().map(|layer| layer.size).max().unwrap_or(0).max(1);
    let mut rows = String::new();
    for (index, layer) in image.layers.iter().enumerate() {
        let percent = layer.size as f64 * 100.0 / largest as f64;
        let wasted = layer.wasted as f64 * 100.0 / largest as f64;
        rows.push_str(&format!(
            "<tr data-layer=\"{index}\"><td class=\"number\">{}</td>\
             <td class=\"size\"><span class=\"bar\"><i style=\"width:{percent:.2}%\"></i>\
             <b style=\"width:{:.2}%\"></b></span>{}</td>\
             <td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td class=\"instruction\"><code>{}</code><small>{}</small></td></tr>\n",
            index + 1,
            wasted.min(percent),
            human::bytes(layer.size),
            layer.added,
            layer.changed,
            layer.removed,
            human::bytes(layer.wasted),
            in_page(&instruction(image, &layer.created_by)),
            in_page(&layer.diff_id.to_string()),
        ));
    }
    rows
}

/// Rows of the list of what is wasted.
fn wasted_files(image: &ImageLayers) -> String {
    let wasted = image.largest(WASTED, |file| file.size > 0 && file.fate != Fate::Kept);
    let mut rows = String::new();
    for file in &wasted {
        let (what, by) = match file.fate {
            Fate::Kept => continue,
            Fate::Replaced(by) => ("replaced", by + 1),
            Fate::Removed(by) => ("removed", by + 1),
        };
        rows.push_str(&format!(
            "<tr data-layer=\"{}\"><td>{}</td><td>{}</td><td>{what} in {by}</td>\
             <td class=\"path\">{}</td></tr>\n",
            file.layer,
            human::bytes(file.size),
            file.layer + 1,
            in_page(&short(&path(file), PATH)),
        ));
    }
    if rows.is_empty() {
        rows.push_str("<tr><td colspan=\"4\">Nothing: every file is in the image once.</td></tr>");
    }
    rows
}

/// A path for people; bytes that are no text are replaced.
fn path(file: &PathVersion<'_>) -> String {
    format!("/{}", String::from_utf8_lossy(file.path))
}

/// What the script draws: layers by their instructions, files as `[path, bytes, layer, fate,
/// count]`, where a count above 1 is a sum of files in a directory.
fn data(image: &ImageLayers) -> Value {
    let instructions = image.layers.iter().map(|layer| instruction(image, &layer.created_by));
    json!({
        "layers": instructions.collect::<Vec<_>>(),
        "files": files::rows(image.versions()),
    })
}

#[cfg(test)]
mod tests;
