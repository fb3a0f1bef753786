import { connect, type PeerCertificate } from 'node:tls'
import { EXIT, Failure, messageOf } from '../failure.ts'

/** The certificate that a firewall shows. */
export interface Shown {
  /** SHA-256, as `openssl x509 -fingerprint -sha256` prints it. */
  fingerprint: string
  subject: string
  issuer: string
  validTo: string
  /** True if this machine trusts it as it is. */
  trusted: boolean
}

/** Fetches a firewall's certificate; nothing is sent. @throws Failure 69 */
export async function fetchCertificate(url: string, ca?: Buffer): Promise<Shown> {
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
