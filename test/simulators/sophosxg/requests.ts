import type { IncomingMessage } from 'node:http'

/**
 * The field `reqxml`: GET query, POST form, POST multipart, or POST with the query (2). A raw `&`
 * ends the field, `+` is a blank, `%xx` is decoded.
 */
export function readRequestXml(request: IncomingMessage, body: Buffer): string {
  const type = request.headers['content-type'] ?? ''
  const query = (request.url ?? '').split('?')[1] ?? ''
  if (type.startsWith('multipart/form-data')) return multipartField(type, body.toString('utf8'))
  const form = type.startsWith('application/x-www-form-urlencoded') ? body.toString('utf8') : ''
  return formField(form) ?? formField(query) ?? ''
}

function formField(form: string): string | undefined {
  const pair = form.split('&').find((part) => part.startsWith('reqxml='))
  if (pair === undefined) return undefined
  const text = pair.slice('reqxml='.length).replaceAll('+', ' ')
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

function multipartField(type: string, body: string): string {
  const boundary = /boundary="?([^";]+)/.exec(type)?.[1] ?? ''
  const part = body.split(`--${boundary}`).find((one) => one.includes('name="reqxml"')) ?? ''
  return part.slice(part.indexOf('\r\n\r\n') + 4).trim()
}
