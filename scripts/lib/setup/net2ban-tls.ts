import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { call } from './account.ts'
import type { Item } from './changes.ts'
import { file, fileOnce, folder, textOf, writeAs } from './items.ts'
import type { Place } from './place.ts'

const FOLDER = '/etc/rabbitmq/net2ban'
const CONF = '/etc/rabbitmq/conf.d/50-net2ban.conf'
/** Ten years: nobody renews it in time, and it can be made again at any time. */
const DAYS = '3650'

/** The authority that clients are told to trust. */
export const CA = `${FOLDER}/ca.pem`

/**
 * An authority of our own, a certificate for the broker, and the listener that uses them.
 *
 * @param host the name or address that clients connect to
 * @param port where RabbitMQ listens with TLS
 */
export function tlsItems(place: Place, host: string, port: number): Item[] {
  const at = (name: string) => place.at(`${FOLDER}/${name}`)
  return [
    folder(place.at(FOLDER)),
    fileOnce(at('ca.pem'), () => makeAll(place, host)),
    fileOnce(at('cert.pem'), () => makeAll(place, host)),
    fileOnce(at('key.pem'), () => makeAll(place, host)),
    file(place.at(CONF), listener(port), 0o644),
  ]
}

function listener(port: number): string {
  return `# Installed by fail2ban-perimeter (f2b-setup net2ban)
listeners.ssl.default = ${port}
ssl_options.cacertfile = ${FOLDER}/ca.pem
ssl_options.certfile = ${FOLDER}/cert.pem
ssl_options.keyfile = ${FOLDER}/key.pem
ssl_options.verify = verify_none
ssl_options.versions.1 = tlsv1.3
ssl_options.versions.2 = tlsv1.2
`
}

/** The authority's key is thrown away: it signs once, so nobody can sign another. */
async function makeAll(place: Place, host: string): Promise<void> {
  const [ca, cert, key] = ['ca.pem', 'cert.pem', 'key.pem'].map((n) => place.at(`${FOLDER}/${n}`))
  if (textOf(ca ?? '') && textOf(cert ?? '') && textOf(key ?? '')) return
  const work = mkdtempSync(join(tmpdir(), 'f2b-setup-'))
  const at = (name: string) => join(work, name)
  const fresh = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
  const sign = ['-CA', at('ca.pem'), '-CAkey', at('ca.key'), '-CAcreateserial', '-days', DAYS]
  try {
    const names = `subjectAltName=${isIP(host) ? 'IP' : 'DNS'}:${host},DNS:localhost,IP:127.0.0.1\n`
    writeFileSync(at('names'), names)
    const subject = ['-subj', '/CN=net2ban authority', '-days', DAYS]
    await call('openssl', [
      'req',
      '-x509',
      ...fresh,
      '-keyout',
      at('ca.key'),
      '-out',
      at('ca.pem'),
      ...subject,
    ])
    await call('openssl', [
      'req',
      ...fresh,
      '-keyout',
      at('key.pem'),
      '-out',
      at('request'),
      '-subj',
      `/CN=${host}`,
    ])
    await call('openssl', [
      'x509',
      '-req',
      '-in',
      at('request'),
      ...sign,
      '-extfile',
      at('names'),
      '-out',
      at('cert.pem'),
    ])
    writeAs(ca ?? '', readFileSync(at('ca.pem'), 'utf8'), 0o644)
    writeAs(cert ?? '', readFileSync(at('cert.pem'), 'utf8'), 0o644)
    writeAs(key ?? '', readFileSync(at('key.pem'), 'utf8'), 0o600)
    if (!place.prefix) await call('chown', ['rabbitmq:rabbitmq', key ?? ''])
  } finally {
    rmSync(work, { recursive: true })
  }
}
