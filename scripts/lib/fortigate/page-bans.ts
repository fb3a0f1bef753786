import { type Html, html } from './html.ts'
import { BY_HAND } from './line.ts'
import type { View } from './page.ts'
import type { Found } from './render.ts'
import { span } from './status.ts'
import { clock, count } from './words.ts'

/** Who is blocked, and the search for one. */
export function bans({ found, words, status, refresh }: View): Html {
  if (!found) return html``
  const shown = found.rows.length
  const which =
    words === '' ? 'the newest first' : `${count(found.hits)} of ${count(found.total)} match`
  const more = found.hits > shown ? `, ${count(shown)} of them shown: search to see others` : ''
  return html`<section>
<h2>Blocked addresses</h2>
<form role="search">
<input type="search" name="q" value="${words}" maxlength="80" placeholder="Address, jail or server" aria-label="Search">
${refresh ? html`<input type="hidden" name="refresh">` : undefined}
<button>Search</button>${words === '' ? undefined : html` <a href="?">show all</a>`}
</form>
<p class="note">${which}${more}</p>
${shown === 0 ? html`<p class="empty">${words ? 'Nothing matches.' : 'Nobody is blocked.'}</p>` : banTable(found.rows, status.at)}
</section>`
}

function banTable(rows: Found[], at: number): Html {
  return html`<table class="bans">
<thead><tr><th>Address</th><th>Jail</th><th>Server</th><th>Remaining</th></tr></thead>
<tbody>
${rows.map(({ address, holders, served }) =>
  holders.map(
    (holder, i) => html`<tr${i > 0 ? html` class="again"` : undefined}>
<td data-name="Address"><code>${address}</code></td>
<td data-name="Jail">${holder.owner === BY_HAND ? '' : holder.jail}</td>
<td data-name="Server">${holder.owner === BY_HAND ? 'by hand' : holder.owner}</td>
<td data-name="Remaining">${served ? remaining(holder.expires, at) : 'not served: protected'}</td></tr>
`,
  ),
)}</tbody>
</table>`
}

function remaining(expires: number, at: number): Html {
  if (expires === 0) return html`for ever`
  const when = new Date(expires * 1000).toISOString()
  return html`<time datetime="${when}" title="until ${clock(expires)}">${span(expires - at)}</time>`
}
