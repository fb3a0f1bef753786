import { sectionOf } from './reporter/section.ts'
import { openReporter } from './reporter/target.ts'
import type { Config } from './settings/schema.ts'
import type { Loaded } from './settled.ts'
import type { Target } from './target.ts'

/** A sibling as those who serve all of them see it: `f2b-deliver`, `f2b-sync` and `f2b-status`. */
export interface Kind {
  /** Its name: of its queue, and before its targets where they could be confused. */
  name: string
  /** The section of the configuration that it has its targets in. */
  section: keyof Config
  /** Where in it the secrets are that its targets need; anywhere if left out. */
  secrets?: string
  /** Tells from an `actionban`, as Fail2Ban shows it, whether it goes here. */
  uses: RegExp
  targets(loaded: Loaded): Promise<Target[]>
  /** Serves others than Fail2Ban, too: without a jail that uses it, a sync leaves it alone. */
  shared?: boolean
}

/** Each is loaded when it is configured: a server with firewalls only needs no XML. */
export const KINDS: Kind[] = [
  {
    name: 'firewall',
    section: 'firewalls',
    // The firewall side's own banip, of action.d/perimeter.conf, is not meant: it has an --owner.
    uses: usesOf('firewall', 'banip|f2b-firewall', '(?!.*--owner=)'),
    targets: async (loaded) => (await import('./firewall/target.ts')).firewallTargets(loaded),
  },
  {
    name: 'sophosxg',
    section: 'sophosxg',
    uses: usesOf('sophosxg', 'f2b-sophosxg'),
    targets: async ({ config }) =>
      (await import('./sophosxg/target.ts')).sophosTargets(config.sophosxg),
  },
  {
    name: 'mikrotik',
    section: 'mikrotik',
    uses: usesOf('mikrotik', 'f2b-mikrotik'),
    targets: async ({ config }) =>
      (await import('./mikrotik/target.ts')).mikrotikTargets(config.mikrotik),
  },
  {
    name: 'opnsense',
    section: 'opnsense',
    uses: usesOf('opnsense', 'f2b-opnsense'),
    targets: async ({ config }) =>
      (await import('./opnsense/target.ts')).opnsenseTargets(config.opnsense, config.owner),
  },
  {
    name: 'fortigate',
    section: 'fortigate',
    secrets: 'fortigate.push',
    uses: usesOf('fortigate', 'f2b-fortigate'),
    targets: async ({ config }) => {
      const { fortigateTarget } = await import('./fortigate/target.ts')
      return config.fortigate ? [fortigateTarget(config.fortigate, false)] : []
    },
  },
  {
    name: 'threatjammer',
    section: 'threatjammer',
    uses: usesOf('threatjammer', 'f2b-threatjammer'),
    targets: async (loaded) => {
      const { makeService } = await import('./reporter/threatjammer.ts')
      return openReporter(makeService(sectionOf(loaded, 'threatjammer')), loaded)
    },
  },
  {
    name: 'abuseipdb',
    section: 'abuseipdb',
    uses: usesOf('abuseipdb', 'f2b-abuseipdb'),
    targets: async (loaded) => {
      const { makeService } = await import('./reporter/abuseipdb.ts')
      return openReporter(makeService(sectionOf(loaded, 'abuseipdb')), loaded)
    },
  },
  {
    name: 'net2ban',
    section: 'net2ban',
    uses: usesOf('net2ban', 'net2banctl'),
    shared: true,
    targets: async (loaded) => {
      const { nodesTarget } = await import('./net2ban/target.ts')
      const { net2banOf } = await import('./net2ban/party.ts')
      return [nodesTarget(net2banOf(loaded, 'server'), loaded.config.state_dir)]
    },
  },
]

/** Those that the configuration has. A node of net2ban only obeys. */
export function configuredKinds(config: Config): Kind[] {
  return KINDS.filter(({ section }) => {
    const value = config[section]
    if (section === 'net2ban' && config.net2ban?.global.mode !== 'server') return false
    return Array.isArray(value) ? value.length > 0 : value !== undefined
  })
}

/** The command of a direct delivery, or the queue of the other. */
function usesOf(name: string, commands: string, but = ''): RegExp {
  return new RegExp(`(^|[\\s/"])(${commands})["\\s]${but}|queue="[^"]*/${name}"`)
}
