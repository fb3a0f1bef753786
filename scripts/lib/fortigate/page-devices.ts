import { type Client, isStale } from './activity.ts'
import { type Html, html } from './html.ts'
import type { View } from './page.ts'
import { span } from './status.ts'
import { clock, count } from './words.ts'

/** Who fetches the list, and who has stopped. */
export function clients({ activity, settings, status }: View): Html {
  const list = activity.clients(status.at)
  const row = (client: Client) => {
    const stale = isStale(client, settings.stale_after, status.at)
    return html`<tr${stale ? html` class="stale"` : undefined}>
<td data-name="From"><code>${client.address}</code></td>
<td data-name="Last fetch">${span(status.at - client.last)} ago${stale ? ' (stopped)' : ''}</td>
<td data-name="Answer">${client.status === 304 ? '304 unchanged' : '200 list'}</td>
<td data-name="Fetches">${count(client.pulls)}</td>
<td data-name="Program">${client.agent || 'unnamed'}</td></tr>
`
  }
  return html`<section>
<h2>Who fetches the list</h2>
${
  list.length === 0
    ? html`<p class="empty">Nobody yet. The device's connector is an external resource of type address.</p>`
    : html`<table class="devices">
<thead><tr><th>From</th><th>Last fetch</th><th>Answer</th><th>Fetches</th><th>Program</th></tr></thead>
<tbody>
${list.map(row)}</tbody>
</table>`
}
</section>`
}

/** What became of the logs that were posted. */
export function receiver({ activity, status }: View): Html {
  const rows = [...activity.received].sort(([a], [b]) => (a < b ? 1 : -1))
  const latest = activity.lastReceived
  return html`<section>
<h2>Posted logs</h2>
<p class="note">${latest ? `the last one ${span(status.at - latest)} ago` : 'none yet'}, counted since ${clock(activity.started)}</p>
${
  rows.length === 0
    ? undefined
    : html`<table class="counts">
<thead><tr><th>Logs were</th><th>as</th><th>Count</th></tr></thead>
<tbody>
${rows.map(([what, times]) => {
  const cut = what.indexOf(' ')
  return html`<tr><td data-name="Logs were">${what.slice(0, cut)}</td><td data-name="as">${what.slice(cut + 1)}</td><td data-name="Count">${count(times)}</td></tr>
`
})}</tbody>
</table>`
}
</section>`
}
