//! Large numbers on the page are exact and never cut off, even on a small phone.

use anyhow::{Context, Result, ensure};
use boundary_usage::{Purpose, Summary};
use boundary_usage_tests::browser::Browser;
use boundary_usage_tests::databases::TestDatabase;
use boundary_usage_tests::usage::{self, update};
use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};

use crate::http::get;
use crate::program::{Serving, Workplace, id, one_socket};

const NUMBERS: [u64; 5] = [18_765_432, 12_345_678_901, (1 << 53) + 1, 9_223_372_036_854_775_806, i64::MAX as u64];

/// Returns the texts with a digit that exceed the window, their cell, or an ancestor that clips.
const CLIPPED: &str = "(() => {
    const clipped = [];
    const texts = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const text = texts.currentNode, element = text.parentElement;
        if (!/[0-9]/.test(text.data) || !element.checkVisibility() || element.closest('svg')) continue;
        const range = document.createRange();
        range.selectNodeContents(text);
        const cell = element.closest('td, dd, li, section, header, footer, span, p');
        const boxes = [{ left: 0, right: innerWidth }, cell.getBoundingClientRect()];
        for (let at = element; at; at = at.parentElement) {
            if (getComputedStyle(at).overflowX !== 'visible') boxes.push(at.getBoundingClientRect());
        }
        const exceeds = (line) => boxes.some((box) => line.left < box.left - 0.5 || line.right > box.right + 0.5);
        if ([...range.getClientRects()].some(exceeds)) clipped.push(text.data.trim());
    }
    return clipped;
})()";

/// Returns the pairs of texts that overlap.
const OVERLAPPING: &str = "(() => {
    const lines = [], overlapping = [];
    const texts = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const text = texts.currentNode;
        if (!text.data.trim() || !text.parentElement.checkVisibility() || text.parentElement.closest('svg')) continue;
        const range = document.createRange();
        range.selectNodeContents(text);
        for (const line of range.getClientRects()) {
            const middle = (line.top + line.bottom) / 2;
            const hit = lines.find(({ line: other }) => middle > other.top && middle < other.bottom
                && line.left < other.right - 1 && other.left < line.right - 1);
            if (hit) overlapping.push([hit.text, text.data.trim()]);
            lines.push({ line, text: text.data.trim() });
        }
    }
    return overlapping;
})()";

struct Scene {
    test: TestDatabase,
    _workplace: Workplace,
    serving: Serving,
}

impl Scene {
    /// Serves a page on which every number is large.
    async fn new() -> Result<Self> {
        let test = TestDatabase::sqlite()?;
        let database = test.connect().await?;
        let backend = database.backend();
        let start = Utc::now() - TimeDelta::hours(3);
        for (place, number) in (0..).zip(NUMBERS) {
            let summary = Summary {
                unique_workspaces: number,
                unique_users: number - 1,
                allowed_requests: number,
                denied_requests: number - 2,
                period_start: start + TimeDelta::minutes(30 * place),
                period_duration_ms: 1_800_000,
                replicas: number,
                ..Summary::default()
            };
            let mut transaction = backend.begin(Purpose::Collection).await?;
            transaction.insert_period(&summary).await?;
            transaction.commit().await?;
        }
        for (replica, number) in (2..).zip(NUMBERS) {
            usage::flush(backend.as_ref(), usage::id(replica), &update(number, 0..3, number, number - 1)).await?;
            // No sketch estimates such a number, but the column can contain it.
            test.execute(&format!(
                "UPDATE boundary_usage_stats SET unique_workspaces_count = {number}, unique_users_count = {number}
                 WHERE replica_id = '{}'",
                usage::id(replica)
            ))
            .await?;
        }
        database.close().await;
        let workplace = Workplace::on(&test.url);
        let more = ["--no-collect", "--listen", "127.0.0.1:0", "--replica", &id(1)].map(str::to_owned);
        let serving = workplace.serve(1, one_socket(&workplace.path("audit.sock"), 1, 2).into_iter().chain(more));
        Ok(Self { test, _workplace: workplace, serving })
    }
}

fn with_commas(number: u64) -> String {
    let digits = number.to_string().into_bytes();
    let groups: Vec<_> = digits.rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}

#[tokio::test]
async fn large_numbers_are_exact_and_never_cut_off_at_any_width() -> Result<()> {
    let scene = Scene::new().await?;
    let pictures = std::env::var_os("PAGE_PICTURES").map(std::path::PathBuf::from);
    let mut browser = Browser::start(true)?;
    for width in [1_100, 768, 544, 360, 320] {
        browser.show(width, "light")?;
        browser.open(&format!("http://{}/", scene.serving.http()))?;
        browser.evaluate("document.getElementById('period-numbers').open = true")?;
        assert_eq!(browser.evaluate(CLIPPED)?, json!([]), "at {width} pixels");
        assert_eq!(browser.evaluate(OVERLAPPING)?, json!([]), "at {width} pixels");
        let overflows = browser.evaluate("document.documentElement.scrollWidth > innerWidth")?;
        assert_eq!(overflows, json!(false), "the page is wider than {width} pixels");
        if let Some(directory) = &pictures {
            std::fs::write(directory.join(format!("numbers-{width}.png")), browser.picture()?)?;
        }
        let text = browser.evaluate("document.querySelector('main').textContent")?;
        for number in NUMBERS {
            ensure!(text.as_str().context("no text")?.contains(&with_commas(number)), "{number} is not on the page");
        }
    }
    assert_eq!(browser.complaints(), [""; 0]);
    scene.serving.stop().json();
    Ok(())
}

#[tokio::test]
async fn counts_in_json_keep_all_digits() -> Result<()> {
    let scene = Scene::new().await?;
    let text = get(&scene.serving.http(), "/status.json").body;
    for number in NUMBERS {
        ensure!(text.contains(&format!("\"allowed_requests\":{number},")), "{number} is not in {text}");
    }
    let status: Value = serde_json::from_str(&text)?;
    let sum = status["database"]["status"]["so_far"]["allowed_requests"].as_u64();
    assert_eq!(sum, Some(i64::MAX as u64), "the sum saturates and is an integer");
    assert_eq!(scene.test.number("SELECT max(last_flush) FROM boundary_usage_replicas").await?, i64::MAX);
    scene.serving.stop().json();
    Ok(())
}
