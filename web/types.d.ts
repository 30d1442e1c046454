// What the page's code uses of ComfyUI's frontend, for the checker (scripts/check). No browser
// reads this file. The full types are in the npm package @comfyorg/comfyui-frontend-types.

declare module "*/scripts/app.js" {
  export interface NodeWidget {
    name: string;
    value?: unknown;
    element?: HTMLElement;
    serialize?: boolean;
  }

  export interface DOMWidgetOptions {
    serialize?: boolean;
    getMinHeight?: () => number;
    getMaxHeight?: () => number;
  }

  export interface GraphNode {
    id: number | string;
    comfyClass?: string;
    widgets?: NodeWidget[];
    addDOMWidget(
      name: string,
      type: string,
      element: HTMLElement,
      options?: DOMWidgetOptions,
    ): NodeWidget;
    size: [number, number];
    computeSize(): [number, number];
    setSize(size: [number, number]): void;
    setDirtyCanvas?(foreground: boolean, background?: boolean): void;
  }

  export interface ToastMessage {
    severity: "success" | "info" | "warn" | "error";
    summary: string;
    detail?: string;
    life?: number;
  }

  export interface Extension {
    name: string;
    setup?(): void | Promise<void>;
    nodeCreated?(node: GraphNode): void;
    refreshComboInNodes?(): void | Promise<void>;
  }

  export const app: {
    graph: { nodes: GraphNode[]; getNodeById(id: number | string): GraphNode | null };
    extensionManager: { toast: { add(message: ToastMessage): void } };
    registerExtension(extension: Extension): void;
  };
}

declare module "*/scripts/api.js" {
  /** What a node said when it ended; `display_node` differs from `node` inside subgraphs. */
  export interface Executed {
    node: string;
    display_node?: string;
    prompt_id: string;
    output: Record<string, any> | null;
  }

  export const api: {
    fetchApi(route: string, options?: RequestInit): Promise<Response>;
    addEventListener(type: "executed", listener: (event: CustomEvent<Executed>) => void): void;
  };
}
