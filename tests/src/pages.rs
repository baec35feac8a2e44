//! What people see of isolab in a browser: the shop of the three tiers, and the report of benchmarks.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::browser::Page;
use crate::tiers::{Shop, host};
use crate::{Sandbox, text};

/// Where the host finds the shop.
const SHOP: &str = "http://127.0.0.1:8080/";

/// A customer looks at the list, searches, looks at a product and orders it.
pub fn the_shop(level: &str) {
    let shop = Shop::up(host(), &["--isolation", level]);
    let mut page = Page::open();
    page.go(SHOP);
    list(&mut page);
    search(&mut page);
    an_order(&mut page);
    assert_eq!(page.complaints(), [""; 0]);
    what_is_not_there(&mut page);
    drop(page);
    shop.down();
}

fn list(page: &mut Page) {
    page.until("document.querySelectorAll('#products li').length === 24");
    // Styles and pictures have come: cards are beside each other, none without its picture.
    page.until("[...document.images].every(it => it.complete && it.naturalWidth > 0)");
    let beside = "(() => { const [one, other] = document.querySelectorAll('#products li'); \
                  return one.offsetTop === other.offsetTop && one.offsetLeft < other.offsetLeft; })()";
    assert_eq!(page.value(beside), true);
    assert_eq!(page.value("document.querySelector('#previous').hidden"), true);
    page.picture("list.png");
    page.click("#next");
    page.until("document.querySelector('#status').textContent === 'Products 25 to 48'");
    page.click("#previous");
    page.until("document.querySelector('#status').textContent === 'Products 1 to 24'");
    // What each part of the answer took, as the application tells the page.
    let timing = page.value("document.querySelector('#timing').textContent");
    assert!(timing.as_str().unwrap().contains("app;dur="), "{timing}");
}

fn search(page: &mut Page) {
    let names = "[...document.querySelectorAll('#products a')].map(it => it.textContent)";
    let found = "document.querySelectorAll('#products a').length === 10";
    page.write("#q", "turquoise marble kettle");
    page.click("#search button");
    page.until(found);
    let by_index = page.value(names);
    let all = by_index.as_array().unwrap().iter().map(|name| name.as_str().unwrap());
    for name in all {
        assert!(name.starts_with("turquoise marble kettle no. "), "{by_index}");
    }
    page.value("document.querySelector('#search select').value = 'scan'");
    page.click("#search button");
    page.until(&format!("new URLSearchParams(location.search).get('by') === 'scan' && {found}"));
    assert_eq!(page.value(names), by_index);
    page.picture("search.png");
    page.write("#q", "no such thing");
    page.click("#search button");
    page.until("document.querySelector('#status').textContent === 'Nothing was found.'");
    page.write("#q", "turquoise marble kettle");
    page.click("#search button");
    page.until(found);
}

/// Orders two of the first that was found.
fn an_order(page: &mut Page) {
    let stock = |page: &mut Page| {
        let stock = page.value("Number(document.querySelector('#stock').textContent)");
        stock.as_i64().unwrap_or_else(|| panic!("{stock} are in stock"))
    };
    let name = page.value("document.querySelector('#products a').textContent");
    page.click("#products a");
    page.until(&format!("document.querySelector('h1')?.textContent === {name}"));
    page.until("document.querySelector('#picture').naturalWidth > 0");
    let before = stock(page);
    // The browser itself does not send an order without a name.
    page.click("#order button");
    assert_eq!(page.value("document.querySelector('#order').checkValidity()"), false);
    page.write("[name=customer]", "Ada Lovelace");
    page.write("[name=quantity]", "2");
    page.click("#order button");
    let said = "document.querySelector('#ordered').textContent";
    page.until(&format!("{said}.endsWith('Thank you, Ada Lovelace.')"));
    let said = page.value(said);
    let total = page.value("document.querySelector('#price').textContent");
    let cents = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    let (_, paid) = said.as_str().unwrap().split_once(" is placed: ").unwrap();
    let paid: u64 = cents(paid).parse().unwrap();
    let price: u64 = cents(total.as_str().unwrap()).parse().unwrap();
    assert_eq!(paid, 2 * price, "{said}");
    // The page asks again, and is told of what the order did.
    page.until(&format!("document.querySelector('#stock').textContent === '{}'", before - 2));
    page.picture("order.png");
}

/// The page says what the server says, and the console that there was a refusal, so that its silence before means
/// something.
fn what_is_not_there(page: &mut Page) {
    page.go(&format!("{SHOP}product?id=0"));
    page.until("document.querySelector('#status').className === 'failed'");
    assert_eq!(page.value("document.querySelector('#product').hidden"), true);
    let complaints = page.complaints();
    assert!(complaints.len() == 1 && complaints[0].contains("404"), "{complaints:?}");
}

/// The report of a short run: each plot is drawn, the console is quiet, and the numbers are those of the JSON.
pub fn a_report() {
    let sandbox = Sandbox::with_busybox();
    let folder = sandbox.data().join("report");
    let levels = ["bench", "all", "--isolation", "process,container"];
    let little = ["--quick", "--operations", "1", "--out", text(&folder)];
    sandbox.isolab(&levels).args(&little).finish().success();
    let report = fs::read(folder.join("report.json")).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    let mut page = Page::open();
    page.go(&format!("file://{}", folder.join("report.html").display()));
    let read = "Object.fromEntries([...document.querySelectorAll('data')].map(it => [it.id, Number(it.value)]))";
    let read: BTreeMap<String, f64> = serde_json::from_value(page.value(read)).unwrap();
    assert_eq!(read, numbers(&report));
    for benchmark in ["startup", "cpu", "memory"] {
        // Curves; a start's phases; and ratios, if the audit let one of them pass.
        let has_ratio = report["comparisons"]
            .as_array()
            .unwrap()
            .iter()
            .any(|it| it["benchmark"] == benchmark && it["ratio"].is_f64());
        let fewest = 1 + usize::from(benchmark == "startup") + usize::from(has_ratio);
        plots(&mut page, benchmark, fewest);
    }
    // What is asked first is in one table: all but what the three tiers did, whose images are not there.
    let asked_first =
        "[...document.querySelectorAll('.short tbody tr')].map(it => it.cells.length)";
    assert_eq!(page.value(asked_first), json!(vec![4; 12]));
    // All that opens does so without a mouse, and nothing is wider than its window.
    let closed = "document.querySelectorAll('details:not([open]) > summary').length";
    assert!(page.value(closed).as_u64().unwrap() > 0);
    let wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth";
    assert_eq!(page.value(wide), false);
    kept(&page.picture("report.png"));
    assert_eq!(page.complaints(), [""; 0]);
}

/// Each figure of a benchmark is seen, and has marks within it and words for who does not see it.
fn plots(page: &mut Page, benchmark: &str, fewest: usize) {
    let plots = page.value(&format!(
        "[...document.querySelectorAll('#{benchmark} figure svg')].map(svg => {{ \
           const box = svg.getBoundingClientRect(); \
           const marks = [...svg.querySelectorAll('rect, path, polyline, circle, line')]; \
           const inside = it => {{ const at = it.getBoundingClientRect(); return at.left >= box.left - 1 \
             && at.right <= box.right + 1 && at.top >= box.top - 1 && at.bottom <= box.bottom + 1; }}; \
           return {{ seen: box.width > 200 && box.height > 20, marks: marks.length, inside: marks.every(inside), \
             words: svg.getAttribute('aria-label') ?? '' }}; }})"
    ));
    let plots = plots.as_array().unwrap();
    assert!(plots.len() >= fewest, "{benchmark}: {plots:?}");
    for plot in plots {
        assert_eq!((&plot["seen"], &plot["inside"]), (&json!(true), &json!(true)), "{plot}");
        assert!(plot["marks"].as_u64() > Some(1) && plot["words"] != "", "{benchmark}: {plot}");
    }
}

/// The numbers of a report's JSON, by the names that the page has for them.
fn numbers(report: &Value) -> BTreeMap<String, f64> {
    let mut numbers = BTreeMap::new();
    let place = |it: &Value| {
        ["benchmark", "subject", "metric"].map(|key| it[key].as_str().unwrap()).join("/")
    };
    for it in report["results"].as_array().unwrap() {
        let one = ["median", "min", "p95", "p99", "max"].map(|key| (key, &it[key]));
        let interval = ["low", "high"].map(|key| (key, &it["interval"][key]));
        for (key, value) in one.into_iter().chain(interval) {
            numbers.insert(format!("{}/{key}", place(it)), value.as_f64().unwrap());
        }
    }
    for it in report["comparisons"].as_array().unwrap() {
        numbers.extend(it["ratio"].as_f64().map(|ratio| (format!("{}/ratio", place(it)), ratio)));
    }
    numbers
}

fn kept(picture: &Path) {
    assert!(fs::metadata(picture).unwrap().len() > 10_000, "{}", picture.display());
}
