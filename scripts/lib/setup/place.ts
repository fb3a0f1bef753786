import { join, resolve } from 'node:path'
import { textOption, type Values } from '../command.ts'
import { EXIT, Failure } from '../failure.ts'
import type { Manner } from './changes.ts'
import { textOf } from './items.ts'

/** Where things come from and go to, and how. */
export interface Place extends Manner {
  /** The package: what has dist/, firewall-side/, action.d/ and filter.d/ in it. */
  source: string
  /** `--prefix`; empty for this machine itself. Files mean the final place, without it. */
  prefix: string
  /** Where a path of the final place is now. */
  at(path: string): string
}

export const CONFIG_DIR = '/etc/fail2ban-perimeter'

export const CONFIG = `${CONFIG_DIR}/config.yaml`

/** The server's key to its firewalls. */
export const KEY = `${CONFIG_DIR}/id_ed25519`
export const KNOWN_HOSTS = `${CONFIG_DIR}/known_hosts`

/** Reads the options that every subcommand has. */
export function placeOf(source: string, values: Values): Place {
  const given = textOption(values, 'prefix')
  const prefix = given === undefined ? '' : resolve(given)
  return {
    source,
    prefix,
    at: (path) => join(prefix || '/', path),
    dryRun: values['dry-run'] === true,
    verbose: values.verbose === true,
    uninstall: values.uninstall === true,
    purge: values.purge === true,
  }
}

/** A file of the package. @throws Failure 78 if it is not there, unless to be undone only */
export function fromPackage(place: Place, name: string): string {
  const text = textOf(join(place.source, name))
  if (text !== undefined || place.uninstall) return text ?? ''
  throw new Failure(
    EXIT.config,
    `Cannot find "${join(place.source, name)}": run npm run build first`,
  )
}
