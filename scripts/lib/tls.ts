import { readFileSync } from 'node:fs'
import type { TLSSocket } from 'node:tls'
import { EXIT, Failure, ioFailure, messageOf } from './failure.ts'
import type { Agent, buildConnector } from './http.ts'

/** How an appliance is reached, and which certificate it must show. */
export interface Connection {
  /** Seconds until there is a connection, and for a request. */
  connect_timeout: number
  deadline: number
  /** SHA-256 fingerprint of its own certificate: hex digits without colons. */
  pin?: string | undefined
  /** The file of who vouches for it. */
  ca?: string | undefined
  /** False trusts anybody who answers. */
  verifySslCertificate?: boolean
}

const NO_CONNECTION: Record<string, string> = {
  ECONNREFUSED: 'connection refused',
  ENOTFOUND: 'host name not found',
  EAI_AGAIN: 'host name not found',
  EHOSTUNREACH: 'no route to it',
  ENETUNREACH: 'no route to it',
  ETIMEDOUT: 'no answer in time',
  UND_ERR_CONNECT_TIMEOUT: 'no answer in time',
}

const TLS_TRUST = /SELF_SIGNED|UNABLE_TO|CERT_|ERR_TLS_CERT|HOSTNAME_MISMATCH|PIN_MISMATCH/

/**
 * Opens the connection of one appliance, with its certificate checked before anything is sent: against
 * what this machine trusts, against `ca`, or against `pin`.
 *
 * @param connected called whenever there is a connection that may be used
 * @throws Failure 78 if `ca` cannot be read
 */
export async function openAgent(settings: Connection, connected: () => void): Promise<Agent> {
  const { Agent, buildConnector } = await import('./http.ts')
  const { connect_timeout, deadline, pin, ca, verifySslCertificate = true } = settings
  const connect = buildConnector({
    timeout: connect_timeout * 1000,
    rejectUnauthorized: verifySslCertificate && pin === undefined,
    // A resumed session shows no certificate to compare with the pin.
    maxCachedSessions: 0,
    ...(ca !== undefined && { ca: readCa(ca) }),
  })
  const timeout = deadline * 1000 + 1000
  return new Agent({
    connections: 1,
    headersTimeout: timeout,
    bodyTimeout: timeout,
    connect: (options, done) =>
      connect(options, (...result: Parameters<buildConnector.Callback>) => {
        const [error, socket] = result
        if (error) return done(error, null)
        if (pin !== undefined && fingerprint(socket as TLSSocket) !== pin) {
          socket.destroy()
          return done(Object.assign(new Error(), { code: 'PIN_MISMATCH' }), null)
        }
        connected()
        done(null, socket)
      }),
  })
}

/** Why a connection did not come about, from its error code. */
export function noConnection(code: string): string {
  return NO_CONNECTION[code] ?? code
}

/**
 * What to do about a certificate that is not trusted; undefined for any other error code.
 *
 * @param setup the command that stores the right one
 */
export function distrustOf(code: string, setup: string): string | undefined {
  if (!TLS_TRUST.test(code)) return undefined
  if (code === 'PIN_MISMATCH') {
    return `its certificate is not the pinned one, nothing was sent: if it was renewed, run ${setup} again`
  }
  if (/ALTNAME|HOSTNAME/.test(code)) {
    return `its certificate is for another name (${code}), nothing was sent: ${setup} stores a pin instead`
  }
  const remedy = `${setup} shows and stores it, or set ca or pin`
  return `its certificate is not trusted (${code}), nothing was sent: ${remedy}`
}

function readCa(path: string): Buffer {
  try {
    return readFileSync(path)
  } catch (error) {
    throw new Failure(EXIT.config, messageOf(ioFailure(`read "${path}"`, error)))
  }
}

function fingerprint(socket: TLSSocket): string {
  return socket.getPeerCertificate().fingerprint256?.replaceAll(':', '') ?? ''
}
