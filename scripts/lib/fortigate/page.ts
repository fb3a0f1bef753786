import { createHash } from 'node:crypto'
import type { Feed as FeedSettings } from '../settings/fortigate.ts'
import type { Activity } from './activity.ts'
import { chart } from './chart.ts'
import { Html, html } from './html.ts'
import { bans } from './page-bans.ts'
import { clients, receiver } from './page-devices.ts'
import type { search } from './render.ts'
import { type Status, span } from './status.ts'
import { STYLE } from './style.ts'
import { clock, count, hourOf, sum } from './words.ts'

/** What the page shows. */
export interface View {
  owner: string
  settings: FeedSettings
  activity: Activity
  status: Status
  /** Undefined if the list cannot be read. */
  found: ReturnType<typeof search> | undefined
  /** What was searched for. */
  words: string
  /** Whether the page loads itself again every 30 s. */
  refresh: boolean
}

// No script, nothing foreign; the one style is known by its hash.
const STYLE_HASH = createHash('sha256').update(STYLE).digest('base64')
export const SECURITY = {
  'content-type': 'text/html; charset=utf-8',
  'cache-control': 'no-store',
  'referrer-policy': 'no-referrer',
  'x-frame-options': 'DENY',
  'content-security-policy': [
    "default-src 'none'",
    `style-src 'sha256-${STYLE_HASH}'`,
    "img-src 'self'",
    "form-action 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
  ].join('; '),
}

export const FAVICON = {
  status: 200,
  headers: { 'content-type': 'image/svg+xml', 'cache-control': 'max-age=86400' },
  body: `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><path fill="#b4232c" d="M16 2 4 6v9c0 8 5 13 12 15 7-2 12-7 12-15V6z"/><path stroke="#fff" stroke-width="3.5" stroke-linecap="round" d="m11 11 10 10m0-10L11 21"/></svg>`,
}

/** The status page, whole: for people, without a script. */
export function page(view: View): string {
  const { owner, status, refresh } = view
  const body = html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
${refresh ? html`<meta http-equiv="refresh" content="30">` : undefined}
<title>${status.alarms.length > 0 ? `(${status.alarms.length}) ` : ''}Blocked by ${owner}</title>
<link rel="icon" href="favicon.svg">
<style>${new Html(STYLE)}</style>
</head>
<body>
${heading(view)}
<main>
${alarms(status)}
${figures(view)}
${history(view)}
<div class="pair">
${clients(view)}
${receiver(view)}
</div>
${bans(view)}
</main>
<footer>fail2ban-perimeter &middot; <a href="blocked-ips">list</a> &middot;
<a href="blocked-ips/ipv4">IPv4</a> &middot; <a href="blocked-ips/ipv6">IPv6</a> &middot;
<a href="metrics">metrics</a></footer>
</body>
</html>
`
  return body.text
}

function heading({ owner, status, refresh, words }: View): Html {
  const query = words === '' ? '' : `q=${encodeURIComponent(words)}`
  // Relative, as every link: the page may be below a path of a proxy.
  const target = refresh ? `?${query}` : `?${query && `${query}&`}refresh`
  const when = new Date(status.at * 1000).toISOString()
  return html`<header>
<h1>Blocked by <b>${owner}</b></h1>
<p><time datetime="${when}">${clock(status.at)}</time>
<a href="${target}">${refresh ? 'stop refreshing' : 'refresh every 30 s'}</a></p>
</header>`
}

function alarms({ alarms }: Status): Html {
  if (alarms.length === 0) return html`<p class="banner good">All is well.</p>`
  return html`${alarms.map((text) => html`<p class="banner bad" role="alert">${text}</p>\n`)}`
}

function figures({ status, activity }: View): Html {
  const day = activity.day(status.at)
  const last = activity.lastPull()
  const parts = status.snapshot?.parts
  const [ipv4 = 0, ipv6 = 0] = [parts?.ipv4, parts?.ipv6].map((p) => p && p.entries + p.dropped)
  const families = `${count(ipv4)} IPv4, ${count(ipv6)} IPv6`
  return html`<section class="tiles" aria-label="In short">
${tile('Blocked now', parts ? count(ipv4 + ipv6) : 'unknown', parts ? families : 'the list cannot be read')}
${tile('New bans', count(sum(day.map((hour) => hour.bans))), 'in 24 hours')}
${tile('Failed logins', count(sum(day.map((hour) => hour.logins))), 'in 24 hours')}
${tile('Last fetch', last ? `${span(status.at - last)} ago` : 'none yet', 'by any device')}
</section>`
}

function tile(name: string, value: string, note: string): Html {
  return html`<div><h2>${name}</h2><p class="value">${value}</p><p>${note}</p></div>`
}

function history({ activity, status }: View): Html {
  return html`<section>
<h2>New bans per hour</h2>
${chart(activity.day(status.at).map(({ start, bans }) => ({ label: hourOf(start), value: bans })))}
</section>`
}
