//! Windows that keys do not share: sessions, and days of different zones.

use crate::refused;

#[test]
fn sessions_of_different_keys_are_not_compared() {
    let session = "FROM SESSION(spans, event_time, INTERVAL '1 minute')";
    let by = "GROUP BY team, window_start, window_end";
    let inner = format!("SELECT team, region, window_start, window_end, count(*) AS n {session} {by}, region");
    let query = format!(
        "SELECT c.team, c.region, c.window_start, c.window_end,
                lag(c.n) /*here*/OVER (PARTITION BY c.team ORDER BY c.window_end) AS observed FROM ({inner}) AS c"
    );
    let help = "partition by every key that the sessions are grouped by, or use TUMBLE or HOP";
    refused(&query, "OVER", "OVER compares sessions of different keys, which do not end together", help);
    let outer = inner.replace("GROUP", "/*here*/GROUP");
    let query = format!(
        "SELECT c.team, c.window_start, c.window_end, sum(c.n) AS observed FROM ({outer}) AS c
         GROUP BY c.team, c.window_start, c.window_end"
    );
    let help = "use TUMBLE or HOP, or leave it out";
    refused(&query, "GROUP", "a second GROUP BY needs windows that all keys share", help);
    let lengths = "SELECT team, window_start, window_end, max(event_time - window_start) AS observed";
    let message = "the window's bounds are not known inside the aggregate of overlapping windows";
    let help = "use window_start and window_end above the aggregate, in HAVING or SELECT";
    refused(&format!("{lengths} {session} /*here*/{by}"), "GROUP", message, help);
}

#[test]
fn days_of_different_zones_are_not_taken_for_one() {
    let by = "team, window_start, window_end";
    let counted = format!("SELECT {by}, count(*) AS n FROM CALENDAR(spans, event_time, 'day', region) GROUP BY {by}");
    let help = "write one rule per zone, with the zone in single quotes";
    let query = counted.replace(" n ", " observed ") + " /*here*/GAP FILL FROM budgets EMIT ON CLOSE";
    refused(&query, "GAP", "GAP FILL cannot know the zone of a key without rows", help);
    let over = |what: &str| format!("SELECT c.{by}, sum(c.n) OVER ({what}) AS observed FROM ({counted}) AS c");
    let apart = "windows of different zones may have one bound in common";
    let query = over("/*here*/PARTITION BY c.window_end");
    refused(&query, "PARTITION", apart, "partition by window_start and window_end to stay within one window");
    let order = "windows of different zones are looked back at in the order in which they end";
    let help = "write ORDER BY window_end, or ORDER BY window_end, window_start";
    for by in ["c.window_start", "c.window_end, c.team", "c.window_end DESC"] {
        let rows = "ROWS BETWEEN 2 PRECEDING AND 1 PRECEDING";
        refused(&over(&format!("PARTITION BY c.team /*here*/ORDER BY {by} {rows}")), "ORDER", order, help);
    }
    let query = format!(
        "SELECT d.team, d.window_start, d.window_end, d.most AS observed FROM (
           SELECT c.team, c.window_end, min(c.window_start) AS window_start, max(c.n) AS most
           FROM ({}) AS c GROUP BY c.team, c.window_end) AS d",
        counted.replace("GROUP", "/*here*/GROUP")
    );
    refused(&query, "GROUP", apart, "group by window_start and window_end");
}
