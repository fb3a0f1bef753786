import { resolve as absolute } from 'node:path'
import { connect, type PeerCertificate } from 'node:tls'
import { textOption, usageFailure, type Values } from '../command.ts'
import { EXIT, Failure, messageOf } from '../failure.ts'
import { quote } from '../lease.ts'
import { ask, type InstallTarget, say } from './plan.ts'
import { textOf } from './things.ts'

/** The certificate that a firewall shows. */
interface Shown {
  /** SHA-256, as `openssl x509 -fingerprint -sha256` prints it. */
  fingerprint: string
  subject: string
  issuer: string
  validTo: string
  /** True if this machine trusts it as it is. */
  trusted: boolean
}

/**
 * How an appliance is recognised from now on: as this machine does, by its authority, or by itself.
 *
 * @param seen where a person finds its fingerprint: completes "Is this what"
 * @param path of its authority's certificate from now on
 */
export async function readTrust(
  seen: string,
  target: InstallTarget,
  url: string,
  path: string,
  values: Values,
) {
  const [caFile, pin] = [textOption(values, 'ca'), textOption(values, 'pin')]
  if (caFile !== undefined && pin !== undefined) throw usageFailure('--ca or --pin, not both')
  const text = caFile === undefined ? undefined : textOf(caFile)
  if (caFile !== undefined && text === undefined) {
    throw new Failure(EXIT.input, `Cannot find ${quote(caFile)}`)
  }
  const shown = await fetchCertificate(url, text === undefined ? undefined : Buffer.from(text))
  show(shown)
  if (caFile !== undefined && text !== undefined) {
    return { ca: { from: absolute(caFile), path, text }, pin: undefined }
  }
  if (pin === undefined && shown.trusted) return { ca: undefined, pin: undefined }
  return { ca: undefined, pin: await confirm(seen, shown, pin, target) }
}

function show(shown: Shown): void {
  say(`certificate of ${shown.subject}, issued by ${shown.issuer}, valid until ${shown.validTo}`)
  say(`  SHA-256 ${shown.fingerprint}${shown.trusted ? ' (trusted)' : ''}`)
}

/** @returns the fingerprint, once a person has said that it is the right one */
async function confirm(
  seen: string,
  shown: Shown,
  pin: string | undefined,
  target: InstallTarget,
): Promise<string> {
  const bare = (text: string): string => text.replaceAll(':', '').toUpperCase()
  if (pin !== undefined) {
    if (bare(pin) === bare(shown.fingerprint)) return shown.fingerprint
    throw new Failure(EXIT.refused, 'Nothing was changed: the certificate is not the one of --pin')
  }
  if (target.dryRun) return shown.fingerprint
  const question = `Is this what ${seen}? [yes/no] `
  if ((await ask(question, '--pin or --ca')).trim() === 'yes') return shown.fingerprint
  throw new Failure(EXIT.refused, 'Nothing was changed: the certificate was not confirmed')
}

/** Fetches a firewall's certificate; nothing is sent. @throws Failure 69 */
async function fetchCertificate(url: string, ca?: Buffer): Promise<Shown> {
  const { hostname, port } = new URL(url)
  const host = hostname.replace(/^\[|\]$/g, '')
  return await new Promise((resolve, reject) => {
    const socket = connect({
      host,
      port: Number(port || 443),
      rejectUnauthorized: false,
      ...(/[a-z]/i.test(host) && !host.includes(':') && { servername: host }),
      ...(ca && { ca }),
    })
    socket.setTimeout(5000, () => socket.destroy(new Error('no answer in time')))
    socket.once('error', (error) => {
      reject(new Failure(EXIT.unreachable, `Cannot connect to ${host}: ${messageOf(error)}`))
    })
    socket.once('secureConnect', () => {
      resolve(describe(socket.getPeerCertificate(), socket.authorized))
      socket.destroy()
    })
  })
}

function describe(certificate: PeerCertificate, trusted: boolean): Shown {
  const { fingerprint256, subject, issuer, valid_to } = certificate
  return {
    fingerprint: fingerprint256,
    subject: nameOf(subject),
    issuer: nameOf(issuer),
    validTo: valid_to,
    trusted,
  }
}

function nameOf(entity: PeerCertificate['subject'] | undefined): string {
  const parts = [entity?.CN, entity?.O].filter((part) => part !== undefined)
  return parts.join(', ') || '(no name)'
}
