"""Writes dashboard.json beside it, which Grafana reads: `python3 dashboard.py`. Change this file, never that one.

A panel says what it shows, in which unit, by which queries and what to read in it; where it stands follows from the order.
Its id stays for good, since links point at it: a new panel takes a new number. In queries `@` stands for the metrics' prefix;
names with a colon are recorded by ../prometheus/recording.yml.
"""

import json
from pathlib import Path

PREFIX = "contacts_gateway_"
RUNBOOK = "https://git.example.com/contacts-gateway/blob/main/deploy/runbook.md"

# Metrics that no panel shows, and why.
NOT_SHOWN = {
    "upstream_outcomes_total": "it is `Calls by outcome` without the accounts, there for rules about a first failure",
    "process_virtual_memory_bytes": "address space, of which next to nothing is used",
}

OF, BY = '{instance=~"$instance"}', '{instance=~"$instance",account=~"$account"}'


def rate(metric, by, also=""):
    """How often something is counted, in a second, by labels."""
    selector = (BY if "account" in by.split(", ") else OF)[:-1] + (f",{also}" if also else "") + "}"
    return f"sum by ({by}) (rate(@{metric}{selector}[$__rate_interval]))"


def quantile(share, histogram, by, also=""):
    """What that share of the observations stays below."""
    inner = rate(f"{histogram}_bucket", f"le, {by}" if by else "le", also)
    return f"histogram_quantile({share}, {inner})"


def quantiles(histogram, by, also=""):
    """The median and the slowest in a hundred, with their names."""
    name = "".join(f" {{{{{label}}}}}" for label in by.split(", ") if label)
    return [(quantile(0.5, histogram, by, also), f"half{name}"), (quantile(0.99, histogram, by, also), f"99 %{name}")]


# (title, [(id, kind, title, width of 24, unit, description, runbook's section, [(query, legend)])])
ROWS = [
    ("Overview", [
        (1, "stat", "Requests a second", 4, "reqps",
         "What callers ask, pages and lists.", "",
         [(rate("requests_total", "listener", 'listener="traffic"'), "")]),
        (2, "stat", "Requests in error", 4, "percentunit",
         "The share of requests that got an error which is not the caller's doing, in the last 2 minutes.", "contactsgatewayerrors",
         [("max(instance:@errors:ratio_rate2m" + OF + ") or vector(0)", "")]),
        (3, "stat", "Answered from memory", 4, "percentunit",
         "The share of pages and lists that needed no call, in the last 5 minutes.", "",
         [("avg(instance:@cache_hits:ratio_rate5m" + OF + ")", "")]),
        (4, "stat", "Calls left this minute", 4, "short",
         "Of the account that has the fewest. At 0 callers get copies, or wait.", "contactsgatewaybudgetexhausted",
         [("min(@budget_left_calls" + BY + ")", "")]),
        (5, "stat", "Accounts that are refused", 4, "short",
         "Whose credential rests because Kore.ai refuses it, or that have no secret.", "contactsgatewayaccountrefused",
         [("sum(@credential_state" + BY[:-1] + ',state=~"resting|disabled"})', "")]),
        (6, "stat", "Alerts that fire", 4, "short",
         "Of the rules beside this dashboard; all gateways together.", "",
         [('count(ALERTS{alertname=~"ContactsGateway.*",alertstate="firing"}) or vector(0)', "")]),
        (7, "stat", "Stale copies last for", 12, "s",
         "While Kore.ai fails: until callers of the first stream get errors. A week means that nothing fails.",
         "contactsgatewaystalerunwayshort",
         [("clamp_max(min(@stale_runway_seconds" + BY + "), 604800)", "")]),
        (8, "stat", "Age of nine answers in ten", 12, "s",
         "How long ago Kore.ai had been asked for what callers were answered.", "",
         [(quantile(0.9, "collection_age_seconds", ""), "")]),
    ]),
    ("Traffic", [
        (10, "timeseries", "Requests by status", 8, "reqps",
         "What callers were answered; errors are among the others.", "contactsgatewayerrors",
         [(rate("requests_total", "resource, status", 'listener="traffic"'), "{{resource}} {{status}}")]),
        (11, "timeseries", "Time to answer", 8, "s",
         "From a request's head to its response's head: what is asked upstream is in it, and so is the wait for a turn.", "",
         quantiles("request_duration_seconds", "resource", 'listener="traffic"')),
        (12, "timeseries", "Requests by caller", 8, "reqps",
         "What each caller's requests came to: refused is its own doing, failed is ours or Kore.ai's.", "contactsgatewayerrors",
         [(rate("caller_requests_total", "caller, outcome"), "{{caller}} {{outcome}}")]),
        (13, "timeseries", "Requests that wait", 8, "short",
         "Requests without an answer yet. At edge.waiting_max more are refused as overloaded, and so are those of a caller of which as many wait as there are places left.", "contactsgatewayoverloaded",
         [("sum by (instance) (@requests_waiting" + OF + ")", "waiting {{instance}}"),
          (rate("requests_shed_total", "instance"), "refused a second {{instance}}")]),
        (14, "timeseries", "Connections", 8, "short",
         "Connections that are open. At listen.connections_max nobody else is let in.", "contactsgatewaynotaccepting",
         [("sum by (listener) (@connections" + OF + ")", "{{listener}}"),
          (rate("accept_pauses_total", "listener, reason"), "pauses a second {{listener}} {{reason}}")]),
        (16, "timeseries", "Errors by code", 8, "reqps",
         "The codes in the errors that callers got. merge_in_progress says that a list is not read yet, and is no fault.",
         "contactsgatewayerrors",
         [(rate("problems_total", "code", 'listener="traffic"') + " > 0", "{{code}}")]),
        (15, "timeseries", "Refused at the door", 16, "reqps",
         "Requests without a good key, requests that were no HTTP, and connections that were ended, by why.", "",
         [(rate("unauthorized_requests_total", "listener, reason"), "key {{reason}} {{listener}}"),
          (rate("malformed_requests_total", "listener"), "no HTTP {{listener}}"),
          (rate("connections_cut_total", "listener, reason"), "cut {{reason}} {{listener}}")]),
    ]),
    ("Freshness", [
        (20, "timeseries", "Stale answers", 8, "reqps",
         "Answers from copies that are older than they should be, and why: revalidating, or the code of what fetching them anew "
         "failed with.", "contactsgatewayupstreamfailing",
         [(rate("cache_stale_total", "cache, reason") + " > 0 or " + rate("cache_stale_total", "cache, reason", 'reason="revalidating"'),
           "{{cache}} {{reason}}")]),
        (21, "timeseries", "How long stale copies last", 8, "s",
         "While Kore.ai fails: until the first stream that callers want has no copy that may be answered. No line: nothing fails.",
         "contactsgatewaystalerunwayshort",
         [("min by (account) (@stale_runway_seconds" + BY + ") < +Inf", "{{account}}")]),
        (22, "timeseries", "Age of answers", 8, "s",
         "How long ago Kore.ai had been asked for what callers were answered; for lists, of the oldest page.", "",
         quantiles("collection_age_seconds", "account, stream")),
        (23, "timeseries", "Answers by stream", 12, "reqps",
         "What requests for a stream's contacts came to. Streams that are not in the configuration are other.", "contactsgatewayerrors",
         [(rate("collection_requests_total", "account, stream, result"), "{{account}} {{stream}} {{result}}")]),
        (24, "timeseries", "Lists by stream", 12, "short",
         "In the last hour, by verdict.", "contactsgatewaylistsfailing",
         [("sum by (account, stream, verdict) (increase(@collection_lists_total" + BY + "[1h]))", "{{account}} {{stream}} {{verdict}}")]),
    ]),
    ("Cache", [
        (30, "timeseries", "Answers by source", 8, "reqps",
         "hit: a fresh copy; slice: cut out of a list; stale: an older copy; miss and expired: asked upstream; joined: waited "
         "for another's call; forced and floor: the caller wanted a newer one.", "",
         [(rate("cache_requests_total", "cache, result"), "{{cache}} {{result}}")]),
        (31, "timeseries", "Memory of copies", 8, "bytes",
         "At cache.max_bytes copies are given up for newer ones.", "contactsgatewaycachefull",
         [("sum by (cache) (@cache_bytes" + OF + ")", "{{cache}}"),
          ("max by (cache) (@cache_max_bytes" + OF + ")", "bound {{cache}}")]),
        (32, "timeseries", "Copies", 8, "short",
         "Pages and lists that are held.", "",
         [("sum by (cache) (@cache_entries" + OF + ")", "{{cache}}")]),
        (33, "timeseries", "Copies given up", 12, "ops",
         "size: for want of memory, which costs calls. Others are as they should be.", "contactsgatewaycachefull",
         [(rate("cache_evictions_total", "cache, cause"), "{{cache}} {{cause}}")]),
        (34, "timeseries", "Copies compressed", 12, "ops",
         "Each once, for the first caller who wants it so.", "",
         [(rate("cache_encodings_total", "cache"), "{{cache}}")]),
    ]),
    ("Budget and upstream", [
        (40, "timeseries", "Calls of the last minute", 8, "short",
         "What counts against the account's calls a minute, and how many it may make as learned from refusals.",
         "contactsgatewayratelimited",
         [("sum by (account) (@budget_taken_calls" + BY + ")", "taken {{account}}"),
          ("sum by (account) (@budget_left_calls" + BY + ")", "left {{account}}"),
          ("sum by (account) (@budget_allowance_calls" + BY + ")", "allowed {{account}}")]),
        (41, "timeseries", "Wait for a turn", 8, "s",
         "How long calls waited until there was one left.", "contactsgatewaybudgetexhausted",
         [*quantiles("budget_wait_seconds", "account")]),
        (42, "timeseries", "Calls not made or refused", 8, "ops",
         "exhausted: no turn in time; refused: by Kore.ai's rate limit, so somebody else spends them too.",
         "contactsgatewaybudgetexhausted",
         [(rate("budget_exhausted_total", "account"), "exhausted {{account}}"),
          (rate("budget_refused_total", "account"), "refused {{account}}")]),
        (43, "timeseries", "Calls by outcome", 8, "ops",
         "What calls to Kore.ai came to: ok, or the code of the fault.", "contactsgatewayupstreamfailing",
         [(rate("upstream_attempts_total", "account, outcome"), "{{account}} {{outcome}}")]),
        (44, "timeseries", "Time of a call", 8, "s",
         "From a call to its page, or to its fault.", "",
         quantiles("upstream_attempt_duration_seconds", "")),
        (49, "timeseries", "Calls under way, calls that wait", 8, "short",
         "Calls that Kore.ai has not answered yet, and calls without a turn yet.", "contactsgatewaybudgetexhausted",
         [("sum by (instance) (@upstream_attempts_running" + OF + ")", "under way {{instance}}"),
          ("sum by (account) (@budget_waiting_calls" + BY + ")", "waiting {{account}}")]),
        (45, "timeseries", "Calls made twice", 8, "ops",
         "Each is paid for. helped: the second one was answered.", "",
         [(rate("upstream_retries_total", "account, helped"), "{{account}}, helped: {{helped}}")]),
        (46, "timeseries", "Breaker", 8, "short",
         "1 for the state that it is in. Five failures in a row open it for 5 s, then one call goes first.", "contactsgatewaybreakeropen",
         [("max by (state) (@upstream_breaker_state" + OF + ")", "{{state}}")]),
        (47, "timeseries", "Calls kept back", 8, "ops",
         "Calls that were not made because the breaker was open.", "contactsgatewaybreakeropen",
         [(rate("upstream_breaker_refused_total", "instance"), "{{instance}}")]),
        (48, "timeseries", "Contacts of another account", 8, "short",
         "Answers in the last hour with contacts that say that they are another account's or stream's.",
         "contactsgatewaytenantmismatch",
         [("sum by (account) (increase(@upstream_tenant_mismatches_total" + BY + "[1h]))", "{{account}}")]),
    ]),
    ("Lists", [
        (50, "timeseries", "Lists read", 8, "short",
         "In the last hour, by verdict or by what ended the reading.", "contactsgatewaylistsfailing",
         [("sum by (outcome) (increase(@walks_total" + OF + "[1h]))", "{{outcome}}")]),
        (51, "timeseries", "Lists that are being read", 8, "short",
         "Walks under way, and lists that are too large to be kept and are being sent.", "",
         [("sum(@walks_running" + OF + ")", "read"), ("sum(@streams_open" + OF + ")", "sent")]),
        (52, "timeseries", "Time to read a list", 8, "s",
         "From its first call to its verdict, over the last hour.", "",
         [(f"histogram_quantile({share}, sum by (le) (rate(@walk_duration_seconds_bucket{OF}[1h])))", name)
          for share, name in [(0.5, "half"), (0.99, "99 %")]]),
        (53, "timeseries", "Lists mended or rested", 8, "short",
         "In the last hour: a list changed while it was read and was mended; a page failed and the reading went on later.",
         "contactsgatewaylistsdrifting",
         [("sum(increase(@walk_changes_total" + OF + "[1h]))", "changed"),
          ("sum(increase(@walk_repairs_total" + OF + "[1h]))", "mended"), ("sum(increase(@walk_rests_total" + OF + "[1h]))", "rested")]),
        (56, "timeseries", "Pages of a list", 8, "short",
         "Of the lists that were read in the last hour.", "",
         [(f"histogram_quantile({share}, sum by (le) (rate(@walk_pages_bucket{OF}[1h])))", name)
          for share, name in [(0.5, "half"), (0.99, "99 %")]]),
        (57, "timeseries", "Contacts that Kore.ai miscounts", 8, "short",
         "By how many contacts its totals are off, of all lists that are settled.", "",
         [("sum by (account) (@list_gap_contacts" + BY + ")", "{{account}}")]),
        (54, "timeseries", "Large lists", 8, "short",
         "Lists too large to be kept that were sent in the last hour, by how they ended.", "contactsgatewaylistsfailing",
         [("sum by (outcome) (increase(@streams_total" + OF + "[1h]))", "{{outcome}}")]),
        (55, "timeseries", "Contacts of large lists", 8, "ops",
         "Contacts that were sent, a second.", "",
         [(rate("stream_records_total", "instance"), "{{instance}}")]),
    ]),
    ("Tokens and certificates", [
        (60, "timeseries", "Credentials", 8, "short",
         "Accounts by the state of their credential. ok is all that should be there.", "contactsgatewayaccountrefused",
         [("sum by (account, state) (@credential_state" + BY + ") > 0", "{{account}} {{state}}")]),
        (61, "timeseries", "Tokens", 8, "ops",
         "Tokens signed, and tokens that Kore.ai refused, by what it said.", "contactsgatewaystreamrefused",
         [(rate("tokens_minted_total", "account"), "signed {{account}}"),
          (rate("tokens_refused_total", "account, reason"), "refused {{account}} {{reason}}")]),
        (62, "timeseries", "Token service", 8, "ops",
         "What asking it came to. Flat where tokens are signed here.", "contactsgatewaytokenservicefailing",
         [(rate("token_service_asks_total", "account, outcome"), "{{account}} {{outcome}}")]),
        (63, "timeseries", "Time to a token's end", 8, "s",
         "Of the last token. It is renewed at half its life, when a call needs it: an idle account's may end.",
         "contactsgatewaytokenexpiring",
         [("max by (account) (@token_expires_timestamp_seconds" + BY + " > 0) - time()", "{{account}}")]),
        (64, "timeseries", "Tokens with a jti", 8, "short",
         "1 for how tokens are used: off, again and again; per_request, one for each call.", "",
         [("max by (account, mode) (@token_jti_mode" + BY + ")", "{{account}} {{mode}}")]),
        (65, "timeseries", "Time to a certificate's end", 8, "s",
         "Of the listeners' own certificates, where they speak TLS.", "contactsgatewaycertificateexpiring",
         [("min by (listener) (@tls_certificate_expiry_timestamp_seconds" + OF + ") - time()", "{{listener}}")]),
        (66, "timeseries", "Certificates read again", 24, "short",
         "In the last day: taken, or refused because certificate and key do not fit.", "contactsgatewaycertificateexpiring",
         [("sum by (listener, outcome) (increase(@tls_certificate_reloads_total" + OF + "[1d]))", "{{listener}} {{outcome}}")]),
    ]),
    ("Process", [
        (70, "timeseries", "Processors", 8, "percentunit",
         "CPU time in a second: 100 % is one core.", "",
         [(rate("process_cpu_seconds_total", "instance"), "{{instance}}")]),
        (71, "timeseries", "Memory", 8, "bytes",
         "Resident memory. Beside the copies a process needs about 15 % of them and 32 MiB.", "contactsgatewaycachefull",
         [("sum by (instance) (@process_resident_memory_bytes" + OF + ")", "{{instance}}")]),
        (72, "timeseries", "Descriptors", 8, "percentunit",
         "Descriptors that are open, of those that the system gives.", "contactsgatewaynotaccepting",
         [("@process_open_fds" + OF + " / @process_max_fds" + OF, "{{instance}}")]),
        (73, "timeseries", "Threads", 6, "short", "Threads of the process.", "",
         [("sum by (instance) (@process_threads" + OF + ")", "{{instance}}")]),
        (74, "timeseries", "Time since the start", 6, "s", "It falls to 0 with each start.", "contactsgatewayrestarting",
         [("time() - @process_start_time_seconds" + OF, "{{instance}}")]),
        (75, "timeseries", "Faults of its own", 6, "short",
         "In the last hour: panics, and background tasks that were started again after one.", "contactsgatewaypanicked",
         [("sum by (instance) (increase(@panics_total" + OF + "[1h]))", "panics {{instance}}"),
          ("sum by (task) (increase(@task_restarts_total" + OF + "[1h]))", "{{task}} again")]),
        (77, "timeseries", "Configuration read again", 12, "short",
         "In the last hour: applied, or refused because something is wrong with it.", "contactsgatewayreloadrefused",
         [("sum by (outcome) (increase(@config_reloads_total" + OF + "[1h]))", "{{outcome}}")]),
        (78, "timeseries", "Age of the configuration", 12, "s",
         "How long ago the configuration in force was read.", "contactsgatewayreloadrefused",
         [("time() - @config_last_reload_success_timestamp_seconds" + OF, "{{instance}}")]),
        (76, "timeseries", "Versions", 6, "short", "Gateways by version.", "",
         [("count by (version) (@build_info" + OF + ")", "{{version}}")]),
        (79, "timeseries", "Log lines lost", 6, "short",
         "In the last hour: not written, because the log's output was closed, full or too slow.", "",
         [("sum by (instance) (increase(@log_lines_lost_total" + OF + "[1h]))", "{{instance}}")]),
    ]),
]

# Stats turn yellow and red from these values on; the others have no colours: busy is not broken.
LIMITS = {"Requests in error": (0.01, 0.05), "Accounts that are refused": (None, 1), "Alerts that fire": (None, 1)}

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def colours(title):
    yellow, red = LIMITS.get(title, (None, None))
    steps = [{"color": "green" if title in LIMITS else "text", "value": None}]
    steps += [{"color": colour, "value": value} for colour, value in [("yellow", yellow), ("red", red)] if value is not None]
    return {"mode": "absolute", "steps": steps}


def panel(declared, x, y, height):
    identity, kind, title, width, unit, description, section, queries = declared
    custom = {"lineWidth": 1, "fillOpacity": 8, "showPoints": "never"} if kind == "timeseries" else {}
    options = {
        "timeseries": {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
                       "tooltip": {"mode": "multi", "sort": "desc"}},
        "stat": {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "colorMode": "value",
                 "graphMode": "area", "textMode": "auto"},
    }[kind]
    return {
        "id": identity,
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": width, "h": height},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": custom, "thresholds": colours(title)}, "overrides": []},
        "options": options,
        "links": [{"title": "Runbook", "url": f"${{runbook}}#{section or 'how-to-read-the-dashboard'}", "targetBlank": True}],
        "targets": [
            {"refId": "ABCDEFGH"[at], "datasource": DATASOURCE, "expr": query.replace("@", PREFIX), "legendFormat": legend or "__auto", "range": True}
            for at, (query, legend) in enumerate(queries)
        ],
    }


def panels():
    y = 0
    for at, (title, row) in enumerate(ROWS):
        yield {"id": 1000 + at, "type": "row", "title": title, "collapsed": False, "panels": [],
               "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}}
        y, x = y + 1, 0
        for declared in row:
            height, width = (4 if declared[1] == "stat" else 8), declared[3]
            if x + width > 24:
                x, y = 0, y + height
            yield panel(declared, x, y, height)
            x += width
        y += height


def variable(name, label, metric):
    query = f"label_values(contacts_gateway_{metric}, {name})"
    return {"name": name, "label": label, "type": "query", "datasource": DATASOURCE, "definition": query,
            "query": {"query": query, "refId": name}, "multi": True, "includeAll": True, "allValue": ".+",
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]}, "refresh": 2, "sort": 1}


def dashboard():
    variables = [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "refresh": 1},
        variable("instance", "Gateway", "build_info"),
        variable("account", "Account", 'budget_allowance_calls{instance=~"$instance"}'),
        {"name": "runbook", "label": "Runbook", "type": "constant", "hide": 2, "query": RUNBOOK,
         "current": {"text": RUNBOOK, "value": RUNBOOK}},
    ]
    return {
        "uid": "contacts-gateway",
        "title": "contacts-gateway",
        "description": "Whether callers are served, how old what they get is, and what is left of each account's calls.",
        "tags": ["contacts-gateway"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "links": [{"type": "link", "title": "Runbook", "url": "${runbook}", "targetBlank": True}],
        "templating": {"list": variables},
        "panels": list(panels()),
    }


if __name__ == "__main__":
    text = json.dumps(dashboard(), indent=2) + "\n"
    Path(__file__).with_name("dashboard.json").write_text(text)
